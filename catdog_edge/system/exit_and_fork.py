"""Handle native calls and sessions at the end of the process, and in a forked child.

A daemon thread that returns from C++ (ONNX Runtime, OpenCV) during the shutdown of the interpreter
aborts the process; so the exit waits for running calls. A forked child has none of its parent's
threads; so sessions, which wait for their threads, are neither used nor freed there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time
import weakref
from _thread import get_ident
from typing import Any

LONGEST_WAIT = 10.0  # seconds that the exit waits for running calls

_inside: set[int] = set()
_ended_by: int | None = None


class _NativeCode:
    """Marks this thread as inside native code for a `with` block.

    Raises `SystemExit`, which silently ends the thread, while another thread shuts down the
    interpreter: waiting here could hold a lock that the shutdown needs.
    """

    def __enter__(self) -> None:
        thread = get_ident()
        _inside.add(thread)
        # Checked after the mark: either this thread sees the end, or the end sees this thread.
        if _ended_by is not None and _ended_by != thread:
            _inside.discard(thread)
            raise SystemExit

    def __exit__(self, *_: object) -> None:
        _inside.discard(get_ident())


native_code = _NativeCode()


# `forked` of each is called in every forked child, before anything else runs there, and must not
# raise. A lock may be held by a thread that does not exist in the child.
_forkable: weakref.WeakSet[Any] = weakref.WeakSet()

at_fork = _forkable.add  # register an object with a method `forked`, for as long as it lives


def never_free(lost: object) -> None:
    """Never free an object; its destructor would wait for lost threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))


def _end() -> None:
    global _ended_by
    thread = _ended_by = get_ident()
    deadline = time.monotonic() + LONGEST_WAIT
    while _inside - {thread} and time.monotonic() < deadline:
        time.sleep(0.001)


def _forked() -> None:
    global _ended_by
    _ended_by = None
    _inside.clear()
    for one in list(_forkable):
        one.forked()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
