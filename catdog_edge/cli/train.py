"""`catdog-edge train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from catdog_edge.cli import options as common
from catdog_edge.cli.options import COUNT, COUNT_OR_0, RECIPES, data, model, output

schedule, machine = common.group("Schedule"), common.group("Machine")

RECIPE = "the recipe's"
ARCH = "efficientnet_lite0_short, pretrained, with fewer than 20,000 images; else edge_cnn"
SIZE = click.IntRange(32, 1024)
SEED = click.IntRange(0, 2**63 - 1)
FLOATS = click.Choice(["auto", "float32", "bfloat16"])


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in text.split(","))
    if len(labels) < 2 or not all(labels) or len(set(labels)) != len(labels):
        raise click.BadParameter("give two or more different names, like: cat,dog")
    return labels


def shares(text: str) -> tuple[int, int, int]:
    """Read three shares of 100, like 80/10/10."""
    try:
        train, val, test = (int(part) for part in text.replace(":", "/").split("/"))
    except ValueError:
        raise click.BadParameter("give three whole numbers, like: 80/10/10") from None
    if min(train, val, test) <= 0 or train + val + test != 100:
        raise click.BadParameter("three shares above 0 that sum to 100, like: 80/10/10")
    return train, val, test


def _recipe(text: str) -> str:
    if text in RECIPES:
        return text
    if text.lower().endswith((".yaml", ".yml")):
        return common.path_or_name(text)
    raise click.BadParameter(f"{text!r} is not one of {', '.join(RECIPES)}, nor a .yaml file")


def folder(text: str) -> str:
    """Read the name of a folder below runs/."""
    if not text or Path(text).name != text or text in (".", ".."):
        raise click.BadParameter("a plain folder name, without slashes")
    return text


@common.command(
    "train",
    "catdog-edge train --data images/",
    "catdog-edge train --data cats.zip --arch edge_cnn --epochs 20",
    "catdog-edge train --resume",
)
@common.sources_options("$CATDOG_DATA, else sample", None)
@data("--labels", type=_labels, metavar="A,B", help="Class names, in index order.")
@data("--split", type=shares, default="80/10/10", help="Percentages of train/val/test.")
@data(
    "--limit",
    type=COUNT,
    help="Use at most this many images of each --data, as many of each class.",
)
@data("--keep-damaged", is_flag=True, help="Also use images that the decoder reports damaged.")
@data(
    "--leave-out",
    multiple=True,
    metavar="SOURCE",
    help="Train without the images of a source (SOURCE-anything.jpg); `eval` then measures on it.",
)
@common.arch_option("Architecture", ARCH)
@model("--size", type=SIZE, metavar="PIXELS", show_default="the architecture's", help="Input size.")
@model("--pretrained/--no-pretrained", default=None, help="Start from ImageNet weights.")
@model("--freeze/--no-freeze", default=None, help="Train the last layer only.")
@model(
    "--reject-at",
    default="eer",
    metavar="RULE",
    help="Threshold of `neither`: eer (equal error rates), tpr:0.99 (99 % of the classes are "
    "answered) or tnr:0.99 (99 % of the rest is rejected).",
)
@model("--teacher", type=common.path, help="A trained .pt to distil from.")
@schedule(
    "--recipe",
    type=_recipe,
    metavar="NAME|FILE.yaml",
    show_default="finetune if pretrained, classic for simple_cnn, else default",
    help="Optimizer, schedule and augmentation; other options override it: "
    f"{', '.join(RECIPES)}, or a file in the form that --show-recipe prints.",
)
@schedule("--show-recipe", is_flag=True, help="Print the recipe with the options given, and exit.")
@schedule("--epochs", type=COUNT, show_default=RECIPE, help="Number of epochs.")
@schedule("--batch-size", type=click.IntRange(min=2), show_default=RECIPE, help="Images per step.")
@schedule("--lr", type=common.POSITIVE, show_default=RECIPE, help="Peak learning rate.")
@schedule(
    "--patience", type=COUNT_OR_0, default=0, help="Early-stopping patience in epochs; 0 disables."
)
@schedule("--seed", type=SEED, default=0, help="Seed of weights, order and augmentation.")
@output("--name", type=folder, show_default="DATA-ARCH-NUMBER", help="Folder name below runs/.")
@output("--resume", is_flag=True, help="Resume the newest run, or --name, with its own settings.")
@machine("--device", default="auto", help="cpu, cuda, cuda:1, ...")
@machine("--precision", type=FLOATS, default="auto", help="`auto`: by CPU, network and device.")
@click.pass_context
def command(ctx: click.Context, /, resume: bool, show_recipe: bool, **options: Any) -> None:
    """Train a classifier; weights, metrics and plots go to runs/NAME/."""
    given = click.core.ParameterSource.COMMANDLINE
    for name in sorted(set(ctx.params) - {"name", "device", "resume"}):
        if resume and ctx.get_parameter_source(name) is given:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"--resume takes the run's own settings; leave out {option}")
    from catdog_edge.training import train
    from catdog_edge.training.config.train_options import (
        TrainOptions,
        settled_recipe,
        wants_pretrained,
    )

    if show_recipe:
        from catdog_edge.training.models.registry import DEFAULT, architecture

        chosen = TrainOptions(**options)
        if wants_pretrained(chosen) is not None:  # else the data decide
            chosen = train.settle_architecture(chosen)
        usual = architecture(chosen.arch or DEFAULT).recipe
        click.echo(settled_recipe(chosen, usual).to_yaml(), nl=False)
    elif resume:
        train.resume(options["name"], options["device"])
    else:
        train.train(TrainOptions(**options))
