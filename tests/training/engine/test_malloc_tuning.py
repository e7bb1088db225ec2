"""Freed memory is kept for the next step, where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from catdog_edge.training.engine.malloc_tuning import DEFAULTS, HEAP_TOP, keep_freed_memory

PROGRAM = """
import contextlib, resource, sys
import numpy as np
from catdog_edge.training.engine.malloc_tuning import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(50_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
start = resident()
with keep_freed_memory() if sys.argv[1] == "keep" else contextlib.nullcontext(True) as done:
    assert done
    faults()
    within = faults()
print(within, faults(), resident() - start)
"""


def faults(how: str) -> tuple[int, int, int]:
    """New pages in two loops, within and behind the block; and bytes that are resident for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    within, behind, resident = map(int, done.stdout.split())
    return within, behind, resident


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_blocks_that_come_again_cost_no_new_pages() -> None:
    as_it_is, kept = faults("leave"), faults("keep")
    assert as_it_is[0] > 1000, "the system gives large blocks in small pages"
    assert kept[0] < as_it_is[0] / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_afterwards_all_is_as_it_was_and_nothing_is_kept() -> None:
    _, behind, resident = faults("keep")
    assert behind > 1000
    assert resident < 25_000_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda *_: ("", ""))
    with keep_freed_memory() as done:
        assert done is False


def test_the_values_that_come_back_are_glibcs_own() -> None:
    assert DEFAULTS == {-4: 65_536, -1: 131_072}  # M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt(3)
    assert HEAP_TOP == 2_147_483_647
