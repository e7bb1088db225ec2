"""`catdog-edge train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from catdog_edge.cli.options import (
    ARCHITECTURES,
    DATA,
    NEGATIVES,
    POSITIVE,
    RECIPES,
    Command,
    group,
    path,
    path_or_name,
)

data, model, schedule, output, machine = map(
    group, ("Data", "Model", "Schedule", "Output", "Machine")
)


RECIPE = "the recipe's"


def _labels(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    del ctx, param
    if value is None:
        return None
    labels = tuple(part.strip() for part in value.split(","))
    if len(labels) < 2 or not all(labels) or len(set(labels)) != len(labels):
        raise click.BadParameter("give two or more different names, like: cat,dog")
    return labels


def _split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int, int]:
    del ctx, param
    try:
        train, val, test = (int(part) for part in value.replace(":", "/").split("/"))
    except ValueError:
        raise click.BadParameter("give three whole numbers, like: 80/10/10") from None
    if min(train, val, test) <= 0 or train + val + test != 100:
        raise click.BadParameter("three shares above 0 that sum to 100, like: 80/10/10")
    return train, val, test


def _recipe(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    del ctx, param
    if value is None or value in RECIPES:
        return value
    if value.lower().endswith((".yaml", ".yml")):
        return path_or_name(value)
    raise click.BadParameter(f"{value!r} is not one of {', '.join(RECIPES)}, nor a .yaml file")


def _name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    del ctx, param
    if value is not None and (not value or Path(value).name != value or value in (".", "..")):
        raise click.BadParameter("a plain folder name, without slashes")
    return value


@click.command(
    "train",
    cls=Command,
    examples=(
        "catdog-edge train --data images/",
        "catdog-edge train --data cats.zip --arch efficientnet_lite0 --pretrained",
        "catdog-edge train --resume",
    ),
)
@data(
    "--data",
    metavar="PATH",
    multiple=True,
    show_default="$CATDOG_DATA, else sample",
    help=f"{DATA} Repeatable.",
)
@data("--labels", callback=_labels, metavar="A,B", help="Class names, in index order.")
@data("--split", callback=_split, default="80/10/10", help="Percent for train/val/test.")
@data("--limit", type=click.IntRange(min=1), help="Use at most this many images.")
@data("--other", metavar="PATH", multiple=True, help=f"{NEGATIVES} Repeatable.")
@data("--keep-damaged", is_flag=True, help="Also use images that the decoder reports damaged.")
@data(
    "--leave-out",
    multiple=True,
    metavar="SOURCE",
    help="Train without the images of a source (SOURCE-anything.jpg); `eval` then measures on it.",
)
@model(
    "--arch",
    type=click.Choice(ARCHITECTURES),
    default="edge_cnn",
    metavar="NAME",
    help=f"Architecture: {', '.join(ARCHITECTURES)}.",
)
@model(
    "--size",
    type=click.IntRange(32, 1024),
    metavar="PIXELS",
    show_default="the architecture's",
    help="Height and width of the input.",
)
@model("--pretrained/--no-pretrained", default=None, help="Start from ImageNet weights.")
@model("--freeze/--no-freeze", default=None, help="Train the last layer only.")
@model(
    "--reject-at",
    default="eer",
    metavar="RULE",
    help="Threshold of `neither`: eer (equal error rates), tpr:0.99 (99 % of the classes are "
    "answered) or tnr:0.99 (99 % of the rest is rejected).",
)
@model("--teacher", type=path, help="A trained .pt to distil: learn its answers, too.")
@schedule(
    "--recipe",
    callback=_recipe,
    metavar="NAME|FILE.yaml",
    show_default="default; finetune with --pretrained; classic for simple_cnn",
    help="Optimizer, schedule and augmentation (sets what is left out of the options here): "
    f"{', '.join(RECIPES)}, or a file in the form that --show-recipe prints.",
)
@schedule("--show-recipe", is_flag=True, help="Print the recipe with the options given, and stop.")
@schedule("--epochs", type=click.IntRange(min=1), show_default=RECIPE, help="Number of epochs.")
@schedule("--batch-size", type=click.IntRange(min=2), show_default=RECIPE, help="Images per step.")
@schedule("--lr", type=POSITIVE, show_default=RECIPE, help="Peak learning rate.")
@schedule(
    "--patience",
    type=click.IntRange(min=0),
    default=0,
    help="Early-stopping patience in epochs; 0 disables.",
)
@schedule(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    help="Seed of weights, order and augmentation.",
)
@output("--name", callback=_name, show_default="DATA-ARCH-NUMBER", help="Folder name below runs/.")
@output(
    "--resume",
    is_flag=True,
    help="Resume an interrupted run (the newest, or --name) with its own settings.",
)
@machine("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@machine(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="`auto` goes by CPU, network and device.",
)
@click.pass_context
def command(ctx: click.Context, /, resume: bool, show_recipe: bool, **options: Any) -> None:
    """Train a classifier; weights, metrics and plots go to runs/NAME/."""
    given = click.core.ParameterSource.COMMANDLINE
    for name in sorted(set(ctx.params) - {"name", "device", "resume"}):
        if resume and ctx.get_parameter_source(name) is given:
            option = name.replace("_", "-")
            raise click.UsageError(
                f"--resume continues with the run's own settings; leave out --{option}"
            )
    from catdog_edge.training import train
    from catdog_edge.training.config.train_options import TrainOptions, settled_recipe

    if show_recipe:
        from catdog_edge.training.models.registry import architecture

        usual = architecture(options["arch"]).recipe
        click.echo(settled_recipe(TrainOptions(**options), usual).to_yaml(), nl=False)
    elif resume:
        train.resume(options["name"], options["device"])
    else:
        train.train(TrainOptions(**options))
