"""What the programs of this folder share."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime

from catdog_edge.errors import CatdogError
from catdog_edge.runtime.threads import MOST
from catdog_edge.system.console import log_to_stderr


def exit_code(name: str, body: Callable[[], None]) -> int:
    """Run a program; print an error as one line on stderr.

    Args:
        name: Of the program, for the line.
        body: What to run.

    Returns:
        0, or the exit code of the error: 1, or 3 where a limit is not met.
    """
    try:
        with log_to_stderr():
            body()
    except CatdogError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing is kept", file=sys.stderr)
        return 1
    return 0


def seconds(text: str) -> float:
    """Parse a duration; for `argparse`."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError("give a number of seconds above 0")
    return value


def threads(text: str) -> int:
    """Parse a number of threads; for `argparse`."""
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"give a whole number in 1..{MOST}")
    return value


def bare_session(model: Path, count: int) -> onnxruntime.InferenceSession:
    """A session on the CPU as a person would make it by hand, with `count` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
