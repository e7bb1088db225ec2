"""Suppress the logs and warnings of libraries that convert models."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def suppress_logging() -> Iterator[None]:
    """Suppress all logging and warnings within a block; the file is checked afterwards."""
    before, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        # `logging.info` of a library gives the root logger a handler: all we log would show twice.
        logging.root.handlers[:] = handlers
