"""Gain of a first convolution over blocks of four pixels, `exporters.static_int8.space_to_depth`.

    python -m benchmarks.studies.first_convolution runs/NAME/model.onnx --seconds 20

Makes the static int8 file of an fp32 one with and without it, times the sessions interleaved and
compares their answers. Calibrated on noise: for times alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report.text import markdown_table
from benchmarks.studies.command_line import StudyParser
from catdog_edge.errors import CatdogError
from catdog_edge.runtime.model_file import read_spec
from exporters.checks.predictors import open_session
from exporters.checks.timing import compare
from exporters.graph.onnx_file import write_model
from exporters.static_int8 import quantize

HEADS = ["network", "as it is, ms", "four pixels at once, ms", "ratio", "answers"]


def measure(source: Path, seconds: float, threads: int) -> list[str]:
    """Return one line of the table."""
    spec = read_spec(source)
    if spec.layout != "nhwc-uint8":
        raise CatdogError(f"{source} takes {spec.layout}; export it with --layout nhwc-uint8")
    frames = np.random.default_rng(0).integers(0, 256, (4, spec.height, spec.width, 3), np.uint8)
    calibrated = quantize.calibrate(source, frames)
    calls, answers = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for merge in (False, True):
            path = Path(folder) / f"{merge}.onnx"
            write_model(quantize.quantize(calibrated, merge_pixels=merge), path, calibrated.spec)
            session = open_session(path, threads)
            calls[str(merge)] = partial(session.run, None, {"frames": frames[:1]})
            answers.append(calls[str(merge)]())
        timing = compare(calls, seconds)
    same = all((left == right).all() for left, right in zip(*answers, strict=True))
    p50 = [f"{1e3 * row.p50:.3f}" for row in timing.rows.values()]
    network = f"{spec.architecture} {spec.height}"
    return [network, *p50, str(timing.ratio("True")), "the same" if same else "DIFFERENT"]


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    rows = [measure(path, options.seconds, options.threads) for path in options.models]
    print(markdown_table(HEADS, rows))


main = StudyParser("first_convolution", __doc__, report)
main.add_argument("models", nargs="+", type=Path, help="fp32 .onnx files of ours")
main.seconds(20.0, "of timing, each")
main.threads("of both sessions", default=2)

if __name__ == "__main__":
    sys.exit(main())
