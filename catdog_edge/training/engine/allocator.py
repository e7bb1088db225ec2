"""Keep freed memory for the next step, where the C library allows it.

Knows glibc's `mallopt`; knows nothing of training. A training step on the CPU allocates and
frees the same large blocks again and again. glibc maps each from the system and gives it
back, so every step pays for clean pages: a third of the processor time of a step of
`simple_cnn` was the system's (`docs/experiments.md`).
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Numbers of glibc's `malloc.h`."""

KEPT = 2**31 - 1
"""Bytes at the top of the heap that are not given back: `mallopt` takes an `int`."""

USUAL = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 * 1024}
"""glibc's own values."""


@contextlib.contextmanager
def kept_freed_memory() -> Iterator[bool]:
    """Have glibc serve large blocks from the heap and keep the heap, for a while; process-wide.

    For steps that are alike. Where blocks of other sizes come and go between small ones that
    stay, the heap frays: evaluating 17,000 pictures batch by batch took 20 GB. So it lasts for
    the steps of an epoch, and afterwards all that is free goes back to the system.

    Yields:
        Whether it is done: not with another C library.
    """
    library = _glibc()
    if library is None:
        yield False
        return
    done = bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, KEPT))
    try:
        yield done
    finally:
        for option, value in USUAL.items():
            library.mallopt(option, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL(None)
        _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return None
    return library
