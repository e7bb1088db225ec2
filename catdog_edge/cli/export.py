"""`catdog-edge export`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from catdog_edge.cli import options as common
from catdog_edge.system.console import style

form, quantization = map(common.group, ("Formats", "Quantization"))


@common.command(
    "export",
    "catdog-edge export --quantize",
    "catdog-edge export --weights runs/pets --quantize static --half",
    "catdog-edge export --for cuda",
)
@common.weights_option("A checkpoint, a run folder, or a file that import made.")
@common.data_option
@common.limit_option
@form(
    "--quantize",
    type=click.Choice(["auto", "dynamic", "static", "all"]),
    is_flag=False,
    flag_value="auto",
    help="Also make int8 files: dynamic, static (calibrated on training images) or both. Without "
    "a value: both, keeping what passes its checks and is smaller.",
)
@form("--half", is_flag=True, help="Also make an fp16 file.")
@form(
    "--for",
    "target",
    type=click.Choice(["cuda"]),
    help="Optimise for this target: fp16 for NVIDIA GPUs, checked and timed on one if this machine "
    "has one.",
)
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
@form("--batch", type=common.COUNT, show_default="dynamic", help="Fixed batch size.")
@form(
    "--opset",
    type=common.COUNT,
    default=17,
    help="ONNX opset version; 14 to 27 load in every format.",
)
@form(
    "--heat-map",
    is_flag=True,
    help="Add what `Classifier.explain` and `predict --explain` need to show where the model "
    "looked. Calls without it take as long as before.",
)
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
@quantization("--keep-slower", is_flag=True, help="Keep an int8 file that is slower than fp32.")
@common.max_drop_option(default=0.5)
@common.strict_option
@common.out_option("beside the weights", "Output folder.")
@common.json_option
def command(as_json: bool, **options: Any) -> None:
    """Export to model.onnx and smaller formats; check and time each file.

    Exit code 3: a requested file did not pass its checks and is not kept; of the int8 files of
    `--quantize` without a value, one is enough.
    """
    from exporters import export

    if options["target"] is not None and options["quantize"] is not None:
        raise click.UsageError("--for cuda makes no int8 file; leave out --quantize")
    result = export.export(export.ExportOptions(**options))
    if as_json:
        click.echo(json.dumps(result.document, indent=2))
    else:
        click.echo(f"{result}\n\n{style(result.advice(), sys.stdout, bold=True, fg='green')}")
    result.require()
