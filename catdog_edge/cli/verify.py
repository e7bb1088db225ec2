"""`catdog-edge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from catdog_edge.cli import options as common


@common.command(
    "verify",
    "catdog-edge verify runs/pets/best.pt runs/pets/model.onnx",
    "catdog-edge verify model.onnx model.static.onnx --data images/ --max-drop 1",
)
@click.argument("reference", type=common.path)
@click.argument("candidate", type=common.path)
@common.data_option
@common.limit_option
@common.spec_option
@common.max_drop_option(show_default="0.5")
@common.strict_option
@common.out_option("beside CANDIDATE", "Folder for verify-flips.csv and .png.")
@common.json_option
def command(reference: Path, candidate: Path, as_json: bool, **options: Any) -> None:
    """Compare CANDIDATE (.onnx, .ort) with REFERENCE (.pt, .onnx, .ort) on validation images.

    Compares names, types and shapes, then values, agreement and accuracy. Exit code 3: the
    limits of CANDIDATE's precision are not met.
    """
    from exporters import verify

    result = verify.verify(reference, candidate, **options)
    click.echo(result.to_json() if as_json else str(result))
    result.verification.require(str(candidate))
