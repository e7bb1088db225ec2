"""Shared parts of the commands: grouped help with examples, literal choices, option types.

The choices are literals, so that `--help` imports nothing but click; tests compare them with
the registries.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from catdog_edge.system.files import expand_path

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
RECIPES = ("default", "classic", "finetune", "accurate", "distil", "fast", "yardstick")
PROVIDERS = ("auto", "cpu", "cuda", "tensorrt", "openvino", "coreml")
MOST_THREADS = 256  # as `catdog_edge.system.threads.MOST`
MOST_BATCH = 65_536  # of `bench`; it allows less on the CPU and without enough memory

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class _GroupedOption(click.Option):
    def __init__(self, *arguments: Any, group: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.group = group


class Command(click.Command):
    """A command whose help lists options under headings and ends with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        del ctx
        write_examples(formatter, self.examples)


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Return `click.command` for a `Command` with these examples."""
    return click.command(name, cls=Command, examples=examples)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write shell lines under the heading `Examples`, unwrapped."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def group(title: str) -> Callable[..., Callable[[_Decorated], _Decorated]]:
    """Return `click.option` for the options under one heading.

    Examples:
        >>> data = group("Data")
        >>> @command("count", "catdog-edge count --limit 5")
        ... @data("--limit", type=int, help="Use at most this many images.")
        ... def count(limit: int | None) -> None: ...
    """
    return functools.partial(click.option, cls=_GroupedOption, group=title)


class Number(click.FloatRange):
    """A finite number in a range."""

    name = "number"

    def convert(self, value: Any, *where: Any, **named: Any) -> float:  # noqa: D102
        number = float(super().convert(value, *where, **named))
        if not math.isfinite(number):
            raise click.BadParameter("give a finite number")
        return number


class Percent(Number):
    """A percentage; a fraction such as 0.999 is rejected, since such a gate would never fail."""

    def convert(self, value: Any, *where: Any, **named: Any) -> float:  # noqa: D102
        number = super().convert(value, *where, **named)
        if 0 < number < 1 or (number == 1 and self.max == 100):  # of 100 %, 1 is one as well
            raise click.BadParameter(f"{number:g} looks like a share; give percent, like 99.9 or 5")
        return number


POSITIVE = Number(min=0, min_open=True)
NOT_NEGATIVE = Number(min=0)
POINTS = Number(0, 100)  # percentage points
COUNT = click.IntRange(min=1)
COUNT_OR_0 = click.IntRange(min=0)


def size(text: str) -> int:
    """Read a number of bytes, like 500MB; a type for options."""
    number = text.strip().upper().removesuffix("B").strip()
    factor = 1000 ** ("KMGT".index(number[-1]) + 1) if number[-1:] in tuple("KMGT") else 1
    try:
        found = float(number.rstrip("KMGT")) * factor
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e15:
        raise click.BadParameter("give a size, like: 500MB")
    return int(found)


def path(text: str) -> Path:
    """Expand a leading `~`, which shells leave in `--weights=~/best.pt`; a type for options."""
    named = Path(text)
    return expand_path(named) if text.startswith("~") and not named.exists() else named


def path_or_name(text: str) -> str:
    """Expand a leading `~` of what may also be a name; a type for options."""
    return str(path(text)) if text.startswith("~") else text


data, model, output = map(group, ("Data", "Model", "Output"))
DATA = "A folder or .zip of labelled images, `oxford-pets` (a download), or `sample` (drawings)."


def sources_options(usual: str, usual_negatives: str | None) -> Callable[[_Decorated], _Decorated]:
    """Return `--data` and `--other`, both repeatable, with their defaults for the help."""
    repeated = functools.partial(data, metavar="PATH", multiple=True)
    negatives = "Negatives: a folder or .zip of images of no class, or `drawn`. Repeatable."
    other = repeated("--other", show_default=usual_negatives, help=negatives)
    sources = repeated("--data", show_default=usual, help=f"{DATA} Repeatable.")
    return lambda command: sources(other(command))


class Arch(click.Choice[str]):
    """One of `ARCHITECTURES`, or `timm:NAME`."""

    def convert(self, value: Any, *where: Any, **named: Any) -> str:  # noqa: D102
        if str(value).startswith("timm:") and value != "timm:":
            return str(value)
        return super().convert(value, *where, **named)


def arch_option(text: str, usual: str | None = None) -> Callable[[_Decorated], _Decorated]:
    """Return `--arch`; the help ends with the choices."""
    kind, listed = Arch(ARCHITECTURES), ", ".join(ARCHITECTURES)
    help_text = f"{text}: {listed}, or timm:NAME (any network of timm, with [timm])."
    return model("--arch", type=kind, metavar="NAME", show_default=usual, help=help_text)


def out_option(usual: str, text: str) -> Callable[[_Decorated], _Decorated]:
    """Return `--out`, a folder."""
    return output("--out", type=path, show_default=usual, help=text)


json_option = output("--json", "as_json", is_flag=True, help="Print JSON.")
data_option = data("--data", metavar="PATH", show_default="the run's data", help=DATA)
limit_option = data(
    "--limit",
    type=click.IntRange(min=32),
    metavar="N",
    show_default="all",
    help="Use at most this many validation images.",
)
model_option = model(
    "--model",
    type=path_or_name,
    metavar="NAME|FILE",
    show_default="fast",
    help="An .onnx file or the name of a shipped model.",
)
provider_option = model(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="auto",
    help="ONNX Runtime execution provider; `auto` picks the fastest that starts.",
)
threads_option = model(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    show_default="$CATDOG_EDGE_THREADS, else the usable cores",
    help="Threads of the model.",
)
reject_option = model(
    "--reject",
    type=Number(0, 1),
    show_default="the model's own",
    help="Answer `neither` below this score; 0 disables.",
)
spec_option = model(
    "--spec",
    "spec_file",
    type=path,
    metavar="FILE.json",
    help="Spec for a file without one; input and output then go by position.",
)
gate = group("Gates")
strict_option = gate(
    "--strict",
    is_flag=True,
    help="Compare the estimates themselves with the limits, however few the images. See "
    "docs/export.md.",
)
max_drop_option = functools.partial(
    gate,
    "--max-drop",
    type=POINTS,
    metavar="POINTS",
    help="Percentage points of accuracy that an int8 file may lose.",
)


def weights_option(text: str) -> Callable[[_Decorated], _Decorated]:
    """Return `--weights` with its own help text."""
    return model("--weights", type=path, show_default="the newest run's best.pt", help=text)
