"""`catdog-edge eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from catdog_edge.cli.options import (
    DATA,
    NEGATIVES,
    Command,
    group,
    json_option,
    path,
    weights_option,
)

data = group("Data")


@click.command(
    "eval",
    cls=Command,
    examples=("catdog-edge eval", "catdog-edge eval --weights runs/pets/model.onnx --json"),
)
@weights_option("A .pt, .onnx or .ort file, or the name of a shipped model.")
@data(
    "--data",
    metavar="PATH",
    multiple=True,
    show_default="the run's data",
    help=f"{DATA} Repeatable.",
)
@data(
    "--other",
    metavar="PATH",
    multiple=True,
    show_default="the run's",
    help=f"{NEGATIVES} Repeatable.",
)
@group("Output")("--plot", type=path, metavar="PNG", help="Draw the trade-off of thresholds.")
@json_option
def command(
    weights: Path | None,
    data: tuple[str, ...],
    other: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure accuracy and calibration on the test split."""
    from catdog_edge.training import evaluate

    found = evaluate.evaluate_weights(weights, data, other, plot)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
