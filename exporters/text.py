"""What is said, what is left unsaid: text that several exporters share. Knows no models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


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
