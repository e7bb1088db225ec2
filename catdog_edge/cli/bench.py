"""`catdog-edge bench`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from catdog_edge.cli import options as common
from catdog_edge.cli.options import COUNT_OR_0, POSITIVE, Percent, data, gate, model, output
from catdog_edge.system.console import style

measurement = common.group("Measurements")


def _distinct_counts(most: int) -> Callable[[str], tuple[int, ...]]:
    def read(text: str) -> tuple[int, ...]:
        try:
            counts = tuple(int(part) for part in text.split(",") if text)
        except ValueError:
            counts = (0,)
        if any(not 1 <= count <= most for count in counts) or len(set(counts)) != len(counts):
            raise click.BadParameter(f"give different whole numbers of 1 to {most}, like: 1,8,32")
        return counts

    return read


BATCHES = _distinct_counts(common.MOST_BATCH)
SCENARIO = click.Choice(["single-stream", "offline"])


@common.command(
    "bench",
    "catdog-edge bench",
    "catdog-edge bench --weights runs/pets/best.pt --threads 1,2 --batch 1,8",
    "catdog-edge bench --baseline old/bench.json --tolerance 5",
)
@common.weights_option(
    "A checkpoint; the exported files beside it are measured. Or a file that import made, to which "
    "the others of --also are compared."
)
@model("--also", multiple=True, metavar="FILE", help="Another exported file or shipped model.")
@model("--compile", "compiled", is_flag=True, help="Add a row for torch.compile.")
@common.data_option
@data("--originals", metavar="PATH", help="More labelled images, for example full-size.")
@measurement(
    "--seconds",
    type=POSITIVE,
    default=60.0,
    help="Duration of the interleaved rounds. The whole run takes a minute or two more with four "
    "rows, and longer with more rows or images.",
)
@measurement(
    "--threads",
    type=_distinct_counts(common.MOST_THREADS),
    default="",
    metavar="N,...",
    show_default="the runtime's choice",
    help="Thread counts.",
)
@measurement("--batch", "batches", type=BATCHES, default="1", metavar="N,...", help="Batch sizes.")
@measurement(
    "--provider",
    "asked",
    multiple=True,
    type=click.Choice(common.PROVIDERS[1:]),
    show_default="the CPU and all others that start",
    help="Measure on this execution provider.",
)
@measurement(
    "--cold-starts", type=COUNT_OR_0, default=3, help="Fresh processes per row; 0 disables."
)
@measurement(
    "--corruptions", type=COUNT_OR_0, default=100, help="Test images per corruption; 0 disables."
)
@measurement("--scenario", type=SCENARIO, help="Also run the rows under MLCommons' LoadGen.")
@gate(
    "--max-drop",
    type=common.POINTS,
    metavar="POINTS",
    help="Maximum loss of accuracy against PyTorch, in percentage points.",
)
@common.strict_option
@gate(
    "--min-agreement",
    type=Percent(0, 100),
    metavar="PERCENT",
    help="Minimum agreement of a row with PyTorch, such as 99.9.",
)
@gate("--max-ratio", multiple=True, metavar="ROW=X", help="Maximum time, relative to PyTorch.")
@gate("--baseline", type=common.path, help="An earlier bench.json; no row may be worse than it.")
@gate(
    "--tolerance",
    type=Percent(min=0),
    default=10.0,
    metavar="PERCENT",
    help="Tolerance of --baseline in time and size.",
)
@gate("--force", is_flag=True, help="Accept a --baseline of another machine, model or data.")
@common.out_option("the run's folder", "Folder for the reports.")
@output("--json", "as_json", is_flag=True, help="Print bench.json instead of the tables.")
def command(
    max_drop: float | None,
    strict: bool,
    min_agreement: float | None,
    max_ratio: tuple[str, ...],
    tolerance: float,
    asked: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Compare PyTorch and every exported file: latency, accuracy, parity.

    Measures on the test split; writes bench.json, .csv, .md, .html and bench-flips.csv. Exit
    code 3: a gate is not met.
    """
    from benchmarks import bench
    from benchmarks.report import document as report
    from benchmarks.report import gates

    try:
        ratios = gates.parse_max_ratio(max_ratio)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-ratio") from error
    limits = gates.Limits(max_drop, min_agreement, ratios, tolerance, strict)
    done = bench.bench(bench.BenchOptions(limits=limits, providers=asked, **options))
    if as_json:
        click.echo(json.dumps(done.document, indent=1))
    else:
        click.echo(report.terminal(done.document, done.folder))
        said = gates.advice(done.document, done.weights.parent)
        click.echo(f"\n{style(said, sys.stdout, bold=True, fg='green')}")
    gates.enforce(done.gates)
