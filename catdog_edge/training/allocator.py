"""Keep freed memory for the next step, where the C library allows it.

Knows glibc's `mallopt`; knows nothing of training. A training step on the CPU allocates and
frees the same large blocks again and again. glibc maps each from the system and gives it
back, so every step pays for clean pages: a third of the processor time of a step of
`simple_cnn` was the system's (`docs/experiments.md`).
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Numbers of glibc's `malloc.h`."""

KEPT = 2**31 - 1
"""Bytes at the top of the heap that are not given back: `mallopt` takes an `int`."""


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from the heap and to keep the heap; process-wide.

    Peak memory rises by what lies fragmented: for `simple_cnn` by a third to a half.

    Returns:
        Whether that was possible: not with another C library.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
