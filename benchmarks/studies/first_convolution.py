"""Gain of a first convolution over blocks of four pixels, `exporters.graph.space_to_depth`.

    python -m benchmarks.studies.first_convolution runs/NAME/model.onnx --seconds 20

Makes the static int8 file of an fp32 one with and without it, times the sessions interleaved and
compares their answers. Calibrated on noise: for times alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.studies import command_line
from catdog_edge.errors import CatdogError
from catdog_edge.runtime.model_file import read_spec
from exporters.checks.predictors import open_session
from exporters.checks.timing import compare
from exporters.graph.onnx_file import write_model
from exporters.static_int8 import quantize


def measure(source: Path, seconds: float, threads: int) -> str:
    """Return one line of the table."""
    rng = np.random.default_rng(0)
    spec = read_spec(source)
    if spec.layout != "nhwc-uint8":
        raise CatdogError(f"{source} takes {spec.layout}; export it with --layout nhwc-uint8")
    frames = rng.integers(0, 256, (4, spec.height, spec.width, 3), np.uint8)
    calibrated = quantize.calibrate(source, frames)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, take in (("as it is", False), ("four pixels at once", True)):
            model = quantize.quantize(calibrated, merge_pixels=take)
            path = Path(folder) / f"{take}.onnx"
            write_model(model, path, calibrated.int8_spec)
            sessions[name] = open_session(path, threads)
        feed = {"frames": frames[:1]}
        before, after = (session.run(None, feed) for session in sessions.values())
        same = all((left == right).all() for left, right in zip(before, after, strict=True))
        timing = compare(
            {name: lambda s=session: s.run(None, feed) for name, session in sessions.items()},  # type: ignore[misc]
            seconds,
        )
    p50 = [f"{1e3 * timing.rows[name].p50:.3f}" for name in sessions]
    ratio = timing.ratio("four pixels at once")
    answers = "the same" if same else "DIFFERENT"
    return f"| {spec.architecture} {spec.height} | {' | '.join(p50)} | {ratio} | {answers} |"


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    print("| network | as it is, ms | four pixels at once, ms | ratio | answers |")
    print("|---|---|---|---|---|")
    for path in options.models:
        print(measure(path, options.seconds, options.threads), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="fp32 .onnx files of ours")
    parser.add_argument(
        "--seconds", type=command_line.seconds, default=20.0, help="of timing, each"
    )
    parser.add_argument("--threads", type=command_line.threads, default=2)
    options = parser.parse_args(arguments)
    return command_line.exit_code("first_convolution", lambda: report(options))


if __name__ == "__main__":
    sys.exit(main())
