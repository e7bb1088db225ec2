"""Freed memory is kept for the next step, where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from catdog_edge.training.allocator import keep_freed_memory

PROGRAM = """
import resource, sys
import numpy as np
from catdog_edge.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(50_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_blocks_that_come_again_cost_no_new_pages() -> None:
    as_it_is, kept = faults("leave"), faults("keep")
    assert as_it_is > 1000, "the system gives large blocks in small pages"
    assert kept < as_it_is / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda *_: ("", ""))
    assert keep_freed_memory() is False
