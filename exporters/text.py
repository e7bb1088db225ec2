"""What is said, what is left unsaid: text that several exporters share. Knows no models."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator


def first_line(error: BaseException) -> str:
    """The first line of an error's message, short enough for one line of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # ONNX's converter prefixes its reason with a place in its own source, onnxruntime its own
    # number and name of the error.
    reason = re.sub(r"^.*Assertion .* failed: ", "", lines[0]) if lines else ""
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", reason)
    return (reason or type(error).__name__)[:160]


def megabytes(size: int) -> str:
    """A size in millions of bytes."""
    return f"{size / 1e6:.2f} MB"


def points(share: float) -> str:
    """A signed difference of shares in percentage points."""
    return f"{100 * share:+.2f}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ONNX Runtime's quantizer from advising on the root logger: it is called as advised."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
