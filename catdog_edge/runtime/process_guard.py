"""The end of the process: calls that are under way in other threads end first.

Knows nothing of models. A daemon thread that comes back from C++ (ONNX Runtime, OpenCV) while
the interpreter is being taken down is ended in there, and that aborts the whole process.
"""

from __future__ import annotations

import atexit
import os
import time
from _thread import get_ident

LONGEST = 10.0
"""Seconds that the end waits for calls under way."""

_under_way: set[int] = set()
_ended_by: int | None = None

leave = _under_way.discard
"""Say that a thread, as `enter` named it, is back."""


def enter() -> int:
    """Say that this thread goes into C++; its number, for `leave`.

    Raises:
        SystemExit: The interpreter is ending, and not in this thread. This ends a thread
            without a word; to wait here instead could keep a lock that the end needs.
    """
    me = get_ident()
    _under_way.add(me)
    # Looked at after saying so: either this thread sees the end, or the end sees this thread.
    if _ended_by is not None and _ended_by != me:
        leave(me)
        raise SystemExit
    return me


def _end() -> None:
    global _ended_by
    me = _ended_by = get_ident()
    patience = time.monotonic() + LONGEST
    while _under_way - {me} and time.monotonic() < patience:
        time.sleep(0.001)


def _forked() -> None:
    """In a forked child there are no other threads, whatever they were doing."""
    global _ended_by
    _ended_by = None
    _under_way.clear()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
