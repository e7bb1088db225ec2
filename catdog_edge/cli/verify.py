"""`catdog-edge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from catdog_edge.cli.options import (
    NOT_NEGATIVE,
    Command,
    data_option,
    group,
    json_option,
    limit_option,
    path,
    spec_option,
)


@click.command(
    "verify",
    cls=Command,
    examples=(
        "catdog-edge verify runs/pets/best.pt runs/pets/model.onnx",
        "catdog-edge verify model.onnx model.static.onnx --data images/ --max-drop 1",
    ),
)
@click.argument("reference", type=path)
@click.argument("candidate", type=path)
@data_option
@limit_option
@spec_option
@group("Limits")(
    "--max-drop",
    type=NOT_NEGATIVE,
    metavar="POINTS",
    show_default="0.5",
    help="Percentage points of accuracy that an int8 file may lose.",
)
@group("Limits")(
    "--strict",
    is_flag=True,
    help="Judge by the estimates alone, however few the images. See docs/export.md.",
)
@group("Output")(
    "--out",
    type=path,
    show_default="beside CANDIDATE",
    help="Folder for verify-flips.csv and .png.",
)
@json_option
def command(reference: Path, candidate: Path, as_json: bool, **options: Any) -> None:
    """Compare CANDIDATE (.onnx, .ort) with REFERENCE (.pt, .onnx, .ort) on validation images.

    Compares names, types and shapes, then values, agreement and accuracy. Exit code 3: the
    limits of CANDIDATE's precision are not met.
    """
    from exporters import verify

    result = verify.verify(reference, candidate, **options)
    click.echo(result.to_json() if as_json else str(result))
    result.verification.require(str(candidate))
