"""Text that can be shown anywhere: no control characters, whatever the encoding of the output.

Knows characters and streams, nothing of what is said. A file's name or a label may hold any
character, also those that a terminal obeys, and the place it is printed to may know few.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from catdog_edge.errors import CatdogError

_OBEYED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories that a terminal or a reader of lines obeys, and halves of characters."""

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of what follows, and so what a name looks like."""


def plain(text: str) -> str:
    r"""The text with every character that is obeyed, not shown, escaped as Python does: `\n`."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _OBEYED or character in _TURNS
        else character
        for character in text
    )


def _as_json(error: UnicodeError) -> tuple[str, int]:
    """Escape what an encoding does not know as JSON does: right in JSON, readable elsewhere."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("catdog_edge.escaped", _as_json)


def tolerant_output() -> None:
    """Let standard output and error take any text; for commands, at their beginning.

    Raises:
        CatdogError: Standard output is closed.
    """
    if sys.stdout is None:
        raise CatdogError(
            "standard output is closed, there is nowhere for the answer to go; send it to a file, "
            "or to /dev/null"
        )
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="catdog_edge.escaped")


def note(line: str) -> None:
    """Say a line on standard error. Where that cannot be written nothing is said: results count."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr, sys.__stderr__)


class _StderrHandler(logging.Handler):
    """Write records to the current `sys.stderr` as lines for people, control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"catdog-edge: warning: {text}"
        note("\n".join(map(plain, text.split("\n"))))


_PROGRESS = ("catdog_edge.training", "exporters", "benchmarks")
"""Loggers whose `info` is the progress report of a command; of the others, warnings are shown."""


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within the block, show on stderr what this project's modules log; for commands alone.

    `info` of training, exporters and benchmarks is shown as it is, `warning` of any module as
    `catdog-edge: warning: TEXT`. Of the processes that `torchrun` starts, only rank 0 shows `info`.

    Example:
        >>> log = logging.getLogger("exporters.pipeline")
        >>> with log_to_stderr():
        ...     log.info("model.onnx: %.2f MB", 1.5)
    """
    handler = _StderrHandler()
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    loggers = {name: logging.getLogger(name) for name in ("catdog_edge", *_PROGRESS)}
    before = {name: logger.level for name, logger in loggers.items()}
    roots = [logger for name, logger in loggers.items() if "." not in name]
    for name, logger in loggers.items():
        logger.setLevel(level if name in _PROGRESS else max(level, logging.WARNING))
    for logger in roots:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in roots:
            logger.removeHandler(handler)
        for name, logger in loggers.items():
            logger.setLevel(before[name])


def _give_up(stream: TextIO, real: TextIO | None) -> None:
    """Let what a stream could not write go nowhere."""
    # Otherwise the interpreter tries once more at its end, and complains in its own way.
    if real is not None and stream is real:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, real.fileno())
        os.close(nowhere)


def output_error(error: Exception) -> CatdogError | None:
    """The one line for a standard output that cannot be written, a full disk for instance.

    Args:
        error: What was caught around everything that writes.

    Returns:
        `None` for any other error, where standard output is in order, and where its reader has
        gone: `head` has then seen enough, and no more is to be said.
    """
    if not isinstance(error, OSError) or error.errno == errno.EPIPE or sys.stdout is None:
        return None
    try:
        sys.stdout.flush()  # what could not be written is still there and fails again
        if not _printing(error):  # unbuffered, nothing is kept
            return None
        raise error
    except OSError as again:
        _give_up(sys.stdout, sys.__stdout__)
        return CatdogError(
            f"standard output cannot be written: {again.strerror or again}; make room, or send "
            "it to another place"
        )


def _printing(error: OSError) -> bool:
    """Whether an error comes out of printing to standard output."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    frame = place.tb_frame
    return frame.f_globals.get("__name__") == "click.utils" and not frame.f_locals.get("err")
