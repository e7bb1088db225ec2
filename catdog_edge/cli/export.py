"""`catdog-edge export`."""

from __future__ import annotations

import json
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
    weights_option,
)

form, quantization = group("Formats"), group("Quantization")


@click.command(
    "export",
    cls=Command,
    examples=(
        "catdog-edge export --quantize",
        "catdog-edge export --weights runs/pets --quantize static --half",
    ),
)
@weights_option("A checkpoint or a run folder.")
@data_option
@limit_option
@form(
    "--quantize",
    type=click.Choice(["dynamic", "static", "all"]),
    is_flag=False,
    flag_value="dynamic",
    help="Also make int8 files. Without a value: dynamic; static calibrates on training images.",
)
@form("--half", is_flag=True, help="Also make an fp16 file.")
@form(
    "--format",
    type=click.Choice(["onnx", "ort"]),
    default="onnx",
    help="`ort`: also make a file in ONNX Runtime's own format.",
)
@form(
    "--layout",
    type=click.Choice(["nhwc-uint8", "nchw-float"]),
    default="nhwc-uint8",
    help="Input: BGR frames as OpenCV holds them, or float RGB planes in 0..1.",
)
@form("--batch", type=click.IntRange(min=1), show_default="dynamic", help="Fixed batch size.")
@form("--opset", type=click.IntRange(min=1), default=17, help="14 to 27 load in every format.")
@form("--logits", is_flag=True, help="Add the logits as a second output.")
@quantization(
    "--calibration",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    help="How static quantization finds the range of activations.",
)
@quantization(
    "--calibration-pictures",
    type=click.IntRange(min=32),
    default=300,
    metavar="N",
    help="Training images to calibrate on.",
)
@quantization(
    "--max-drop",
    type=NOT_NEGATIVE,
    default=0.5,
    metavar="POINTS",
    help="Percentage points of accuracy that an int8 file may lose.",
)
@quantization(
    "--strict",
    is_flag=True,
    help="Judge by the estimates alone, however few the images. See docs/export.md.",
)
@quantization("--keep-slower", is_flag=True, help="Keep an int8 file that is slower than fp32.")
@group("Output")("--out", type=path, show_default="beside the weights", help="Output folder.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Export to model.onnx and smaller formats; check and time each file.

    Exit code 3: a requested file did not pass its checks and is not kept.
    """
    from exporters import export

    result = export.export(export.ExportOptions(**options))
    click.echo(json.dumps(result.document, indent=2) if as_json else str(result))
    result.require()
