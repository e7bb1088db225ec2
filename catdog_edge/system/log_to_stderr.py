"""Log this project's modules to standard error, for commands."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from catdog_edge.errors import escaped
from catdog_edge.system.console import note, style

_PROGRESS = ("catdog_edge.training", "catdog_edge.system.console", "exporters", "benchmarks")
"""Loggers whose `info` is the progress report of a command; of the others, warnings are shown."""


class _StderrHandler(logging.Handler):
    """Writes records to the current `sys.stderr`, with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join(map(escaped, record.getMessage().split("\n")))
        if record.levelno >= logging.WARNING:
            text = f"{style('catdog-edge: warning:', sys.stderr, fg='yellow', bold=True)} {text}"
        note(style(text, sys.stderr, **getattr(record, "style", {})))


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the log of this project's modules on stderr during the block; for commands only.

    `info` of training, exporters and benchmarks is shown unchanged, `warning` of any module as
    `catdog-edge: warning: TEXT`; `extra={"style": {...}}` colours a record on a terminal. Of the
    processes that `torchrun` starts, only rank 0 shows `info` and progress bars.

    Examples:
        >>> log = logging.getLogger("exporters.export_steps")
        >>> with log_to_stderr():
        ...     log.info("model.onnx: %.2f MB", 1.5)
    """
    handler = _StderrHandler()
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    levels = {"catdog_edge": max(level, logging.WARNING), **dict.fromkeys(_PROGRESS, level)}
    levels["matplotlib"] = logging.ERROR  # it warns of its cache, where there is no home folder
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: logger.level for name, logger in loggers.items()}
    for name, logger in loggers.items():
        logger.setLevel(levels[name])
        if "." not in name:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.removeHandler(handler)
            logger.setLevel(before[name])
