"""The command line: the only file that names every room; heavy imports are inside callbacks.

A callback turns options into a call and the answer into text. Choices are literals, so that
`--help` answers at once, also where nothing but click is installed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click

from catdog_edge import __version__
from catdog_edge.errors import CatdogError
from catdog_edge.system.console import (
    log_to_stderr,
    note,
    output_error,
    plain,
    tolerant_output,
)
from catdog_edge.system.packages import explain

ARCHITECTURES = (
    "edge_cnn",
    "simple_cnn",
    "mobilenet_v3_small",
    "resnet18",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_lite0_short",
    "efficientnet_lite2",
)
RECIPES = ("default", "classic", "finetune", "accurate", "distil", "yardstick")
PROVIDERS = ("auto", "cpu", "cuda", "tensorrt", "openvino", "coreml")
MOST_THREADS = 256
MOST_BATCH = 32
"""Of `bench`: what `Classifier` gives its session at most, so that a row is one call."""


class _Commands(click.Group):
    """Prints an error that a person can act on as one line, a traceback only with `--debug`."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **more)
        except OSError as error:  # --version and --help print from here
            known = output_error(error)
            if known is None:
                raise
            note(f"catdog-edge: {known}")
            raise click.exceptions.Exit(known.exit_code) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            tolerant_output()
            with log_to_stderr():
                done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except click.ClickException:
            raise
        except Exception as error:  # a broken package raises what it likes
            known = error if isinstance(error, CatdogError) else output_error(error)
            known = known or explain(error)
            if known is None or ctx.params.get("debug"):
                raise
            note(f"catdog-edge: {plain(str(known))}")
            ctx.exit(known.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="catdog-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    r"""A small image classifier from photographs to a device.

    \b
    catdog-edge train               photographs -> runs/NAME/best.pt
    catdog-edge export --quantize   -> model.onnx and an int8 file, checked
    catdog-edge bench               -> speed, accuracy and parity of each

    Every command but verify runs with no arguments and says what it took.
    """
    del debug


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


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    del ctx, param
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("give a finite number")
    return value


def _recipe(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    del ctx, param
    if value is None or value in RECIPES or value.lower().endswith((".yaml", ".yml")):
        return value
    raise click.BadParameter(f"{value!r} is not one of {', '.join(RECIPES)}, nor a .yaml file")


def _path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    del ctx, param
    return None if value is None else Path(value)


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    del ctx, param
    number = value.strip().upper().removesuffix("B").strip()
    factor = 1000 ** ("KMGT".index(number[-1]) + 1) if number[-1:] in tuple("KMGT") else 1
    try:
        size = float(number.rstrip("KMGT")) * factor
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e15:
        raise click.BadParameter("give a size, like: 500MB")
    return int(size)


@main.command()
@click.option("--data", metavar="PATH", help="A folder or .zip of pictures, or `sample` (drawn).  [default: $CATDOG_DATA, else sample]")  # fmt: skip
@click.option("--labels", callback=_labels, metavar="A,B", help="Names of the classes, in the order of their numbers.")  # fmt: skip
@click.option("--split", callback=_split, default="80/10/10", show_default=True, help="Percent of the pictures to train on, to choose by, to test on.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Use at most this many pictures.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), default=ARCHITECTURES[0], show_default=True, help="The network.")  # fmt: skip
@click.option("--recipe", callback=_recipe, metavar="NAME|FILE.yaml", help=f"How it is trained: {', '.join(RECIPES)} (`classic` is the known system's way), or a file in the form of --show-recipe.  [default: default; finetune with --pretrained; classic for simple_cnn]")  # fmt: skip
@click.option("--show-recipe", is_flag=True, help="Print the recipe, with the options given, and stop.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the pictures.  [default: the recipe's]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=2), help="Pictures per step.  [default: the recipe's]")  # fmt: skip
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), callback=_finite, help="Highest learning rate.  [default: the recipe's]")  # fmt: skip
@click.option("--size", type=click.IntRange(32, 1024), metavar="PIXELS", help="Height and width of the input.  [default: the network's]")  # fmt: skip
@click.option("--pretrained/--no-pretrained", default=None, help="Start from ImageNet weights.  [default: the recipe's]")  # fmt: skip
@click.option("--freeze/--no-freeze", default=None, help="Train the last layer alone.  [default: the recipe's]")  # fmt: skip
@click.option("--teacher", callback=_path, metavar="PATH", help="A trained .pt whose answers the network learns from as well (distillation).")  # fmt: skip
@click.option("--other", metavar="PATH", help="Pictures that show none of the classes: a folder or .zip, or `drawn`; the model learns to answer `neither`.")  # fmt: skip
@click.option("--name", help="Name of the folder below runs/.  [default: DATA-ARCH-NUMBER]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Decides weights, order and augmentation.")  # fmt: skip
@click.option("--patience", type=click.IntRange(min=0), default=0, show_default=True, help="Stop after this many epochs without a better one; 0: never.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True, help="`auto` times a few steps of both.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run (the newest, or --name), with its own settings.")  # fmt: skip
@click.pass_context
def train(ctx: click.Context, /, resume: bool, show_recipe: bool, **options: Any) -> None:
    """Train a classifier; weights, figures and pictures go to runs/NAME/."""
    if resume:
        free = ("name", "device", "resume")
        for name in ctx.params:
            source = ctx.get_parameter_source(name)
            if name not in free and source is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"--resume goes on with the run's own settings; leave out --{name.replace('_', '-')}"
                )
    name = options["name"]
    if name is not None and (not name or Path(name).name != name or name in (".", "..")):
        raise click.BadParameter("a plain folder name, without slashes", param_hint="--name")
    from catdog_edge.training import train as trainer
    from catdog_edge.training.config.options import TrainOptions, settled_recipe

    if show_recipe:
        click.echo(settled_recipe(TrainOptions(**options)).to_yaml(), nl=False)
    elif resume:
        trainer.resume(name, options["device"])
    else:
        trainer.train(TrainOptions(**options))


@main.command("eval")
@click.option("--weights", callback=_path, metavar="PATH", help="A .pt or .onnx file, or the name of a shipped model.  [default: the newest run's best.pt]")  # fmt: skip
@click.option("--data", metavar="PATH", help="A folder or .zip of pictures, or `sample`.  [default: the run's data]")  # fmt: skip
@click.option("--other", metavar="PATH", help="Pictures that show none of the classes, or `drawn`.  [default: the run's]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(weights: Path | None, data: str | None, other: str | None, as_json: bool) -> None:
    """Measure accuracy and calibration on the test split."""
    from catdog_edge.training import evaluate

    found = evaluate.evaluate_weights(weights, data, other)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


@main.command()
@click.option("--weights", callback=_path, metavar="PATH", help="A checkpoint or a run folder.  [default: the newest run's best.pt]")  # fmt: skip
@click.option("--data", metavar="PATH", help="A folder or .zip of pictures, or `sample`, to check and calibrate on.  [default: the run's data]")  # fmt: skip
@click.option("--out", callback=_path, metavar="DIR", help="Where the files go.  [default: beside the weights]")  # fmt: skip
@click.option("--quantize", type=click.Choice(["dynamic", "static", "all"]), is_flag=False, flag_value="dynamic", help="Make int8 files too; alone it means dynamic, static calibrates on training pictures.")  # fmt: skip
@click.option("--half", is_flag=True, help="Make an fp16 file too.")
@click.option("--format", type=click.Choice(["onnx", "ort"]), default="onnx", show_default=True, help="`ort`: a file in ONNX Runtime's own format too.")  # fmt: skip
@click.option("--layout", type=click.Choice(["nhwc-uint8", "nchw-float"]), default="nhwc-uint8", show_default=True, help="The input: frames as OpenCV holds them, or float RGB planes 0..1.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), help="A fixed batch.  [default: any]")
@click.option("--opset", type=click.IntRange(min=1), default=17, show_default=True, help="Version of ONNX's operators; every form loads with 14 to 27.")  # fmt: skip
@click.option("--logits", is_flag=True, help="Give the logits as a second output.")
@click.option("--calibration", type=click.Choice(["minmax", "entropy", "percentile"]), default="minmax", show_default=True, help="How static quantization finds the range of activations.")  # fmt: skip
@click.option("--calibration-pictures", type=click.IntRange(min=32), default=300, show_default=True, metavar="N", help="Training pictures to calibrate on.")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(min=0), callback=_finite, default=0.5, show_default=True, metavar="POINTS", help="Percentage points of accuracy that int8 may lose.")  # fmt: skip
@click.option("--keep-slower", is_flag=True, help="Keep an int8 file that is slower than fp32.")
@click.option("--limit", type=click.IntRange(min=32), metavar="N", help="Check on at most this many validation pictures.  [default: all]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(as_json: bool, **options: Any) -> None:
    """Make model.onnx and, as asked, smaller files; each is loaded, checked and timed.

    Exit code 3: a file that was asked for did not pass and is not kept; the line says why.
    """
    from exporters import export

    result = export.export(export.ExportOptions(**options))
    click.echo(json.dumps(result.document, indent=2) if as_json else str(result))
    result.require()


@main.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--data", metavar="PATH", help="A folder or .zip of pictures, or `sample`.  [default: the run's data]")  # fmt: skip
@click.option("--spec", "spec_file", callback=_path, metavar="FILE.json", help="The spec of a file that has none; input and output then go by place.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=32), metavar="N", help="At most this many validation pictures.  [default: all]")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(min=0), callback=_finite, metavar="POINTS", help="Percentage points of accuracy that int8 may lose.  [default: 0.5]")  # fmt: skip
@click.option("--out", callback=_path, metavar="DIR", help="Where verify-flips.csv and .png go.  [default: beside CANDIDATE]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(reference: Path, candidate: Path, as_json: bool, **options: Any) -> None:
    """Hold CANDIDATE (.onnx, .ort) against REFERENCE (.pt, .onnx, .ort) on validation pictures.

    Names, types, shapes, then values, agreement and accuracy; exit code 3 if the limits of
    CANDIDATE's precision are not met.
    """
    from exporters import verify

    result = verify.verify(reference, candidate, **options)
    click.echo(result.to_json() if as_json else str(result))
    result.verification.require(str(candidate))


@main.command()
@click.argument("file", required=False)
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="Print the layers of an architecture instead.")  # fmt: skip
@click.option("--spec", "spec_file", callback=_path, metavar="FILE.json", help="The spec of a file that has none; input and output then go by place.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: str | None, arch: str | None, spec_file: Path | None, as_json: bool) -> None:
    """Print what is in a FILE (.onnx, .ort, .pt); of a shipped model, its card too.

    FILE may be the name of a shipped model.  [default: the shipped model]
    """
    if arch is not None:
        if file is not None or as_json:
            raise click.UsageError("--arch stands alone")
        from catdog_edge.training.models.summary import architecture_table

        click.echo(architecture_table(arch))
        return
    from exporters.info import read_info, read_spec_file

    result = read_info(file, None if spec_file is None else read_spec_file(spec_file))
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else str(result))


def _counts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    del ctx
    if value is None:
        return ()
    most = MOST_THREADS if param.name == "threads" else MOST_BATCH
    try:
        counts = tuple(int(part) for part in value.split(","))
    except ValueError:
        counts = (0,)
    if not 1 <= min(counts) <= max(counts) <= most or len(set(counts)) != len(counts):
        raise click.BadParameter(f"give different whole numbers of 1 to {most}, like: 1,8,32")
    return counts


@main.command()
@click.option("--weights", callback=_path, metavar="PATH", help="A checkpoint; the exported files beside it are measured.  [default: the newest run's best.pt]")  # fmt: skip
@click.option("--data", metavar="PATH", help="A folder or .zip of pictures, or `sample`.  [default: the run's data]")  # fmt: skip
@click.option("--also", multiple=True, metavar="FILE", help="One more exported file, or the name of a shipped model.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), callback=_finite, default=60.0, show_default=True, help="Time for the interleaved rounds.")  # fmt: skip
@click.option("--threads", callback=_counts, metavar="N,...", help="Thread counts.  [default: what the runtime takes]")  # fmt: skip
@click.option("--batch", "batches", callback=_counts, default="1", metavar="N,...", show_default=True, help="Pictures per call.")  # fmt: skip
@click.option("--provider", "asked", multiple=True, type=click.Choice(PROVIDERS[1:]), help="Measure on this provider.  [default: the CPU and all others that start]")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="A row for torch.compile.")
@click.option("--cold-starts", type=click.IntRange(min=0), default=3, show_default=True, help="Fresh processes per row; 0: none.")  # fmt: skip
@click.option("--corruptions", type=click.IntRange(min=0), default=100, show_default=True, help="Test pictures per corruption; 0: none.")  # fmt: skip
@click.option("--originals", metavar="PATH", help="More labelled pictures, like those at original size.")  # fmt: skip
@click.option("--scenario", type=click.Choice(["single-stream", "offline"]), help="Run the rows under MLCommons' LoadGen as well.")  # fmt: skip
@click.option("--out", callback=_path, metavar="DIR", help="Where the reports go.  [default: the run's folder]")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(min=0), callback=_finite, metavar="POINTS", help="Gate: accuracy that a row may lose against PyTorch.")  # fmt: skip
@click.option("--min-agreement", type=click.FloatRange(0, 100), callback=_finite, metavar="PERCENT", help="Gate: how often a row must answer as PyTorch.")  # fmt: skip
@click.option("--max-ratio", multiple=True, metavar="ROW=X", help="Gate: a row may take at most X times PyTorch's time.")  # fmt: skip
@click.option("--baseline", callback=_path, metavar="FILE", help="Gate: no worse than this earlier bench.json.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(min=0), callback=_finite, default=10.0, show_default=True, metavar="PERCENT", help="What --baseline allows in time and size.")  # fmt: skip
@click.option("--force", is_flag=True, help="Take a --baseline of another machine, model or data.")
@click.option("--json", "as_json", is_flag=True, help="Print bench.json instead of the tables.")
def bench(
    max_drop: float | None,
    min_agreement: float | None,
    max_ratio: tuple[str, ...],
    tolerance: float,
    asked: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Compare PyTorch and every exported file: latency, accuracy, parity.

    Measures on the test split; writes bench.json, .csv, .md, .html and bench-flips.csv. A
    gate that is not met is exit code 3.
    """
    from benchmarks import bench
    from benchmarks.report import document as report
    from benchmarks.report import gates

    try:
        ratios = gates.parse_max_ratio(max_ratio)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-ratio") from error
    limits = gates.Limits(max_drop, min_agreement, ratios, tolerance)
    done = bench.bench(bench.BenchOptions(limits=limits, providers=asked, **options))
    if as_json:
        click.echo(json.dumps(done.document, indent=1))
    else:
        click.echo(report.terminal(done.document, done.folder))
    gates.enforce(done.gates)


@main.command()
@click.argument("pictures", nargs=-1, metavar="[PICTURES]...")
@click.option("--model", metavar="M", help="A .onnx file or the name of a shipped model.  [default: fast]")  # fmt: skip
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="`auto`: the best that really starts here.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads.  [default: $CATDOG_EDGE_THREADS, else what may be used]")  # fmt: skip
@click.option("--reject", type=click.FloatRange(0, 1), callback=_finite, help="Answer `neither` below this score; 0: never.  [default: as the model says]")  # fmt: skip
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write the pictures there with label and bar drawn on.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per picture.")
@click.pass_context
def predict(
    ctx: click.Context,
    pictures: tuple[str, ...],
    model: str | None,
    provider: str,
    threads: int | None,
    reject: float | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Say what each picture shows.

    PICTURES are files, folders, patterns, or - for a list of them on standard input, by lines
    or as `find -print0` gives it; without any, the pictures below the current folder. A picture
    that cannot be read is reported, the rest go on, and the exit code is 1 in the end. --save
    overwrites no file: a name that is taken gets a number.
    """
    from catdog_edge.cli.predict import HEADER, answers, gather, listed_names
    from catdog_edge.runtime.classifier import Classifier
    from catdog_edge.runtime.selection import told_plainly

    listed: list[str] = []
    if "-" in pictures and sys.stdin is not None:
        try:
            listed = listed_names(sys.stdin.buffer.read())
        except OSError as error:
            raise CatdogError(
                f"standard input cannot be read: {error.strerror or error}; pipe the list into it"
            ) from error
    files = gather(pictures or (".",), listed, leave_out=save)
    if not files or files == [Path()]:
        where = "listed on standard input" if files == [] else "below the current folder"
        raise CatdogError(f"there are no pictures {where}; name files, folders or patterns")
    with told_plainly(lambda line: note(f"catdog-edge: {line}")):
        opened = Classifier(model, provider, threads, reject)
    with opened as classifier:
        shown = model or f"the shipped model {classifier.path and classifier.path.stem}"
        where = "" if pictures else " below the current folder"
        note(
            f"{len(files):,} picture{'s' * (len(files) != 1)}{where}, {plain(shown)}, provider {classifier.provider}, "
            f"{classifier.threads} threads"
        )
        if not as_json:
            click.echo(HEADER)
        bad = lost = numbered = saved = 0
        for answer in answers(classifier, files, save):
            click.echo(answer.to_json() if as_json else str(answer))
            if answer.error:
                bad += answer.prediction is None
                lost += answer.prediction is not None
                note(f"catdog-edge: {plain(f'{answer.name}: {answer.error}')}")
            saved += answer.saved is not None
            numbered += answer.numbered
    if saved:
        taken = f", {numbered:,} of them numbered: their names were taken" if numbered else ""
        note(f"drawn copies are in {plain(str(save))}{taken}")
    if lost:
        note(f"catdog-edge: {lost:,} of {len(files):,} copies are not written")
    if bad:
        note(f"catdog-edge: {bad:,} of {len(files):,} could not be read")
    if bad or lost:
        ctx.exit(1)


@main.command()
@click.option("--source", multiple=True, default=("0",), show_default=True, metavar="[NAME=]SOURCE", help="A camera's index, an rtsp://, rtmp:// or http:// address, a video, a folder or glob of pictures, - for JPEGs on standard input. Repeatable.")  # fmt: skip
@click.option("--roi", multiple=True, metavar="[NAME=]X,Y,W,H", help="Look at this part of the frames only. Repeatable.")  # fmt: skip
@click.option("--model", metavar="MODEL", help="An ONNX file, or the name of a shipped model.  [default: the shipped one]")  # fmt: skip
@click.option("--provider", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="Where the model runs.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads of the model.  [default: what the process may use]")  # fmt: skip
@click.option("--reject", type=click.FloatRange(0, 1), callback=_finite, help="Answer `neither` below this score.  [default: the model's own]")  # fmt: skip
@click.option("--smoothing", type=click.FloatRange(min=0), callback=_finite, default=0.3, show_default=True, metavar="SECONDS", help="Time constant of the average over time.")  # fmt: skip
@click.option("--enter", type=click.FloatRange(0, 1, min_open=True), callback=_finite, default=0.6, show_default=True, help="Smoothed evidence from which a pet is there.")  # fmt: skip
@click.option("--leave", type=click.FloatRange(0, 1, min_open=True), callback=_finite, default=0.4, show_default=True, help="Smoothed evidence below which it may be gone.")  # fmt: skip
@click.option("--minimum", type=click.FloatRange(min=0), callback=_finite, default=0.3, show_default=True, metavar="SECONDS", help="In sight for less does not count.")  # fmt: skip
@click.option("--absence", type=click.FloatRange(min=0), callback=_finite, default=0.5, show_default=True, metavar="SECONDS", help="Out of sight for less does not count.")  # fmt: skip
@click.option("--motion/--no-motion", default=True, show_default=True, help="Ask the model only where something moved.")  # fmt: skip
@click.option("--realtime", is_flag=True, help="Play recordings at their own speed.")
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), callback=_finite, default=1.0, show_default=True, help="Frames per second of pictures, which carry no times.")  # fmt: skip
@click.option("--start", metavar="TIME", help="When recordings began, like 2026-11-22T15:04:05Z.  [default: now]")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), callback=_finite, default=5.0, show_default=True, metavar="SECONDS", help="Give a silent connection up after this.")  # fmt: skip
@click.option("--retries", type=click.IntRange(min=0), help="Give a camera up after this many failures in a row.  [default: never]")  # fmt: skip
@click.option("--keep-damaged", is_flag=True, help="Use frames that the decoder complains about, too.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), callback=_finite, help="Stop after this long.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
@click.option("--events", callback=_path, metavar="FILE", help="Append the events to this file as JSON lines.")  # fmt: skip
@click.option("--rotate", callback=_size, default="10MB", show_default=True, metavar="SIZE", help="Begin a new --events file at this size; five old ones are kept.")  # fmt: skip
@click.option("--snapshots", callback=_path, metavar="DIR", help="Keep the best frame of each visit here.")  # fmt: skip
@click.option("--keep", callback=_size, default="500MB", show_default=True, metavar="SIZE", help="Delete the oldest --snapshots beyond this.")  # fmt: skip
@click.option("--record", callback=_path, metavar="FILE", help="Record the annotated video (.mkv, .mp4, .avi).")  # fmt: skip
@click.option("--show", is_flag=True, help="Show it in a window; q ends.")
def stream(**options: Any) -> None:
    """Watch cameras and tell when a cat or a dog came and left.

    Events go to standard output, what happens to the cameras to standard error. Ctrl-C ends
    it. `docs/stream.md` has the form of the events and how they are found.
    """
    from catdog_edge.cli.stream import StreamOptions
    from catdog_edge.cli.stream import stream as run

    run(StreamOptions(**options), sys.stdout)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a bug report.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Find what will bite on this machine; exit code 1 if something will."""
    from catdog_edge.cli.doctor import examine

    report = examine()
    click.echo(report.to_json() if as_json else str(report))
    if not report.healthy:
        note("catdog-edge: something will bite; see the lines marked BAD")
        ctx.exit(1)


if __name__ == "__main__":
    main()
