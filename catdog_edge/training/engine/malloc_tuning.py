"""glibc's allocator, tuned for training steps on the CPU.

A step allocates and frees the same large blocks again and again. By default glibc maps each from
the system and gives it back, so every step pays for zeroed pages: a third of the processor time of
a step of `simple_cnn` was the system's (`docs/experiments.md`).
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of `mallopt`, from glibc's `malloc.h`
HEAP_TOP = 2**31 - 1  # bytes at the top of the heap that are not given back; an `int`
DEFAULTS = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 * 1024}  # glibc's own values


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep freed memory for the next step, within a block; yield whether glibc does so.

    For steps that are alike: blocks of many sizes fragment the heap (evaluating 17,000 images
    batch by batch took 20 GB). After the block all free memory goes back to the system.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
        if platform.libc_ver()[0] != "glibc":
            raise OSError("not glibc")
    except (OSError, AttributeError, TypeError):  # Windows has no CDLL(None)
        yield False
        return
    done = bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, HEAP_TOP))
    try:
        yield done
    finally:
        for option, value in DEFAULTS.items():
            mallopt(option, value)
        trim(0)
