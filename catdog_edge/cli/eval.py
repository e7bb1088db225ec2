"""`catdog-edge eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from catdog_edge.cli import options as common


def _png(text: str) -> Path:
    """Read the name of a .png file."""
    if not text.lower().endswith(".png"):
        raise click.BadParameter("give a file that ends in .png")
    return common.path(text)


@common.command(
    "eval", "catdog-edge eval", "catdog-edge eval --weights runs/pets/model.onnx --json"
)
@common.weights_option("A run folder, a .pt, .onnx or .ort file, or the name of a shipped model.")
@common.sources_options("the run's data", "the run's")
@common.output("--plot", type=_png, metavar="PNG", help="Draw the trade-off of thresholds.")
@common.json_option
def command(as_json: bool, **options: Any) -> None:
    """Measure accuracy and calibration on the test split."""
    from catdog_edge.training import evaluate

    found = evaluate.evaluate_weights(**options)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
