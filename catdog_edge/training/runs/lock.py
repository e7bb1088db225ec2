"""Locks between processes, which the system takes back from a process that is killed.

Knows nothing of what they guard. Where the file system or the operating system has no such
lock, everybody gets it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 1.0
"""Seconds after which a folder counts as held; who only looks holds it for an instant."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Hold a folder for the length of a block, without a file in it that says so.

    Yields:
        Whether it is this process's; `False` where another one holds it.
    """
    with _opened(folder) as descriptor:
        until = time.monotonic() + PATIENCE
        while not (mine := _locked(descriptor, alone=True)) and time.monotonic() < until:
            time.sleep(0.02)
        yield mine


def is_held(folder: Path) -> bool:
    """Whether another process, or this one elsewhere, holds the folder."""
    with _opened(folder) as descriptor:
        # Shared: two that look at the same time do not take each other for the holder.
        return not _locked(descriptor, alone=False)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    try:
        descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(descriptor: int | None, *, alone: bool) -> bool:
    if descriptor is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True
