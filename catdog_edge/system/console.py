"""Console output: any encoding, tables, counters, and a full disk."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from catdog_edge.errors import CatdogError

_CLEAR = "\r\x1b[2K"  # characters of a terminal's line
_T = TypeVar("_T")

REDRAW, INTERVAL = 0.1, 30.0  # seconds between redraws of a bar, and between lines in a file


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the length of the longest cell of each column; all rows have as many cells."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def align(rows: Sequence[Sequence[str]], gap: str = "  ", left: int = 1) -> list[str]:
    """Format rows as lines: the first `left` columns left-aligned, the others right-aligned."""
    sides = [f"{'<' if i < left else '>'}{width}" for i, width in enumerate(widths(rows))]
    return [gap.join(map(format, row, sides)).rstrip() for row in rows]


def _as_json(error: UnicodeError) -> tuple[str, int]:
    """Escape characters that an encoding lacks as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("catdog_edge.escaped", _as_json)


def tolerant_output() -> None:
    """Make standard output and error accept any text; called once by a command."""
    if sys.stdout is None:
        raise CatdogError("standard output is closed; send it to a file, or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="catdog_edge.escaped")


def is_terminal(stream: TextIO | None) -> bool:
    """Check whether a stream is a terminal, where lines may be redrawn."""
    return stream is not None and stream.isatty()


def shows_progress() -> bool:
    """Check whether bars are drawn: on a terminal, if this module's logger is enabled for `INFO`.

    A command enables it; to a library's caller, who sets no level, nothing is shown.
    """
    if not is_terminal(sys.stderr):
        return False
    import logging  # which a camera loop does not load

    return logging.getLogger(__name__).isEnabledFor(logging.INFO)


def style(text: str, stream: TextIO | None, **how: Any) -> str:
    """Colour a text as `click.style` does, on a terminal and without `NO_COLOR`."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal(stream):
        return text
    import click  # slow to load, and a camera loop needs none

    return click.style(text, **how)


def progress_bar(
    what: str, total: int, write: Callable[[str], object] | None = None
) -> Callable[[int], None]:
    """Return a function that shows how many of `total` are done, where `shows_progress()`.

    From the third second on the time left is shown, by what was done since the first call. Without
    a name of `what` nothing is shown. `write` prints a text on standard error; by default `print`
    does. Where standard error is no terminal, a line is logged every `INTERVAL` seconds.

    Examples:
        >>> show = progress_bar("images", 1200)
        >>> show(600)  # images  [##########..........]  600 of 1,200, 3 min left
    """
    shown = 0.0
    start: tuple[float, int] | None = None

    def show(done: int) -> None:
        nonlocal shown, start
        now, drawn = time.monotonic(), shows_progress()
        if start is None:
            start, shown = (now, done), 0.0 if drawn else now
        due = now - shown >= (REDRAW if drawn else INTERVAL) or (drawn and done >= total)
        if not (what and due):
            return
        shown = now
        (first, base), line = start, f"{done:,} of {total:,}"
        if base < done < total and now - first > 2:
            line += f", {_duration((now - first) * (total - done) / (done - base))} left"
        if not drawn:
            import logging

            logging.getLogger(__name__).info(f"{what}: {line}")
            return
        filled = 20 * done // max(1, total)
        bar = style("#" * filled, sys.stderr, fg="cyan") + "." * (20 - filled)
        line = f"{_CLEAR}{what}  [{bar}]  {line}" if done < total else _CLEAR
        if write is not None:
            write(line)
        else:
            print(line, end="", file=sys.stderr, flush=True)

    return show


def track(items: Collection[_T], what: str) -> Iterator[_T]:
    """Yield the items, and show how many are done, as `progress_bar` does."""
    show = progress_bar(what, len(items))
    for done, item in enumerate(items):
        show(done)
        yield item
    show(len(items))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def note(line: str) -> None:
    """Print a line on standard error; ignores a failed write."""
    if sys.stderr is None:
        return
    bar = _CLEAR if is_terminal(sys.stderr) else ""
    try:
        sys.stderr.write(f"{bar}{line}\n")  # in one call, or lines of two threads are mixed
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr, sys.__stderr__, 2)


def _discard(stream: TextIO, real: TextIO | None, number: int) -> None:
    """Discard what is still buffered for a full output, which Python would flush at exit."""
    if stream is real:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def output_error(error: Exception) -> CatdogError | None:
    """Return the one line for a full disk; `None` for any other error."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    _discard(sys.stdout, sys.__stdout__, 1)
    what = error.filename or "the output"
    return CatdogError(
        f"cannot write {what}: {error.strerror}; free some disk space, or send it elsewhere"
    )
