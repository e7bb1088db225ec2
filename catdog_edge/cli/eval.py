"""`catdog-edge eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from catdog_edge.cli.options import group, grouped_command, json_option


@grouped_command(
    "eval",
    "catdog-edge eval",
    "catdog-edge eval --weights runs/pets/model.onnx --json",
)
@group("Model")(
    "--weights",
    type=Path,
    metavar="PATH",
    show_default="the newest run's best.pt",
    help="A .pt, .onnx or .ort file, or the name of a shipped model.",
)
@group("Data")(
    "--data",
    metavar="PATH",
    multiple=True,
    show_default="the run's data",
    help="Folder or .zip of labelled images, `oxford-pets`, or `sample`.",
)
@group("Data")(
    "--other",
    metavar="PATH",
    multiple=True,
    show_default="the run's",
    help="Negatives: images of no class, or `drawn`.",
)
@group("Output")("--plot", type=Path, metavar="PNG", help="Draw the trade-off of thresholds.")
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
