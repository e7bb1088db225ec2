"""`catdog-edge import`."""

from __future__ import annotations

import sys
from typing import Any

import click

from catdog_edge.cli import options as common
from catdog_edge.system.console import note, style

theirs = common.group("Their model")


def three(text: str) -> tuple[float, float, float]:
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
    help="Its classes in the order of its outputs: names, a file with one a line, a config.json "
    "of Hugging Face, or ImageNet's thousand.",
)
@theirs("--size", type=common.COUNT, metavar="PIXELS", help="Of an input of any size.")
@theirs(
    "--scale",
    type=common.POSITIVE,
    show_default="255",
    help="Bytes are divided by this first; 1 leaves them 0 to 255.",
)
@theirs("--mean", type=three, metavar="R,G,B", show_default="0", help="Then this is subtracted.")
@theirs(
    "--std",
    type=three,
    metavar="R,G,B",
    show_default="1",
    help="Then it is divided by this. Both in the order of --colour.",
)
@theirs(
    "--colour", type=click.Choice(["rgb", "bgr"]), default="rgb", help="Its order of the channels."
)
@theirs(
    "--layout",
    type=click.Choice(["nchw-float", "nhwc-float", "nhwc-uint8", "nchw-uint8"]),
    show_default="as its input shows",
    help="Where its channels are, and what it takes.",
)
@theirs(
    "--resize",
    type=click.Choice(["squash", "crop"]),
    show_default="squash; crop for a file of Ultralytics",
    help="The whole frame, or its centre square.",
)
@theirs("--output", metavar="NAME", help="Which of several outputs has the classes.")
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
    """Make a file for predict, stream, bench, verify and export of another program's FILE.

    FILE is an image classifier in ONNX. The new file takes frames, `uint8 [N,H,W,3]`, BGR, and
    gives probabilities; it is compared with FILE before it is written. For int8 after that:
    `catdog-edge export --weights FILE-imported.onnx --quantize static --data images/`.

    Exit code 3: the new file does not answer as FILE does and is not kept.
    """
    from exporters.import_onnx import ImportOptions, import_onnx

    result = import_onnx(ImportOptions(**options))
    click.echo(result.to_json() if as_json else str(result))
    note(style(f"next: catdog-edge predict --model {result.path} images/", sys.stderr, bold=True))
