"""`catdog-edge import`."""

from __future__ import annotations

import sys
from typing import Any

import click

from catdog_edge.cli import options as common
from catdog_edge.system.console import note, style

theirs = common.group("Model")


def rgb(text: str) -> tuple[float, float, float]:
    """Read one number for all channels, or three with commas; a type for options."""
    try:
        values = [common.Number().convert(part, None, None) for part in text.split(",")]
        red, green, blue = values * 3 if len(values) == 1 else values
    except ValueError:
        raise click.BadParameter("give one number or three, like: 0.485,0.456,0.406") from None
    return red, green, blue


@common.command(
    "import",
    "catdog-edge import theirs.onnx --labels cat,dog",
    "catdog-edge import keras.onnx --labels names.txt --mean 0.5 --std 0.5",
    "catdog-edge import caffe.onnx --labels cat,dog --colour bgr --scale 1 --mean 104,117,123",
)
@click.argument("file", type=common.path)
@theirs(
    "--labels",
    metavar="A,B|FILE|imagenet",
    show_default="in its metadata, as Ultralytics writes them",
    help="Classes in the order of the outputs: names, a file with one per line, a config.json "
    "of Hugging Face, or ImageNet's thousand.",
)
@theirs(
    "--size", type=common.COUNT, metavar="PIXELS", help="Input size, if the file does not fix it."
)
@theirs(
    "--scale",
    type=common.POSITIVE,
    show_default="255",
    help="Divide pixel values by this; 1 keeps 0 to 255.",
)
@theirs("--mean", type=rgb, metavar="R,G,B", show_default="0", help="Subtracted after --scale.")
@theirs(
    "--std",
    type=rgb,
    metavar="R,G,B",
    show_default="1",
    help="Divisor after --mean. Both are in the order of --colour.",
)
@theirs("--colour", type=click.Choice(["rgb", "bgr"]), default="rgb", help="Order of the channels.")
@theirs(
    "--layout",
    type=click.Choice(["nchw-float", "nhwc-float", "nhwc-uint8", "nchw-uint8"]),
    show_default="as its input shows",
    help="Layout and type of the input.",
)
@theirs(
    "--resize",
    type=click.Choice(["squash", "crop"]),
    show_default="squash; crop for a file of Ultralytics",
    help="Resize the whole frame, or its centre square.",
)
@theirs("--output", metavar="NAME", help="Output with the class scores, if there are several.")
@common.data(
    "--data",
    metavar="PATH",
    show_default="drawings",
    help="Compare on the images of a folder or .zip; they need no labels.",
)
@common.data("--limit", type=common.COUNT, default=64, metavar="N", help="Use at most this many.")
@common.output("--out", type=common.path, show_default="FILE-imported.onnx", help="File to write.")
@common.json_option
def command(as_json: bool, **options: Any) -> None:
    """Import an ONNX image classifier made by another tool.

    The new file takes frames, `uint8 [N,H,W,3]`, BGR, and
    returns probabilities; it is compared with FILE before it is written. For int8 after that:
    `catdog-edge export --weights FILE-imported.onnx --quantize static --data images/`.

    Exit code 3: the new file disagrees with FILE and is not kept.
    """
    from exporters.import_onnx import ImportOptions, import_onnx

    result = import_onnx(ImportOptions(**options))
    click.echo(result.to_json() if as_json else str(result))
    note(style(f"next: catdog-edge predict --model {result.path} images/", sys.stderr, bold=True))
