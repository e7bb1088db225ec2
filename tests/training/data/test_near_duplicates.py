from __future__ import annotations

import tracemalloc

import numpy as np

from catdog_edge.training.data.near_duplicates import near_duplicates


def test_near_duplicates_over_more_than_one_block() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (2500, 16, 16), dtype=np.uint8)
    thumbnails[2400], labels = thumbnails[3], np.zeros(2500, np.int64)
    thumbnails[1500] = thumbnails[1100, :, ::-1]
    pairs = near_duplicates(thumbnails, labels)
    assert {(left, right) for left, right, _ in pairs} == {(3, 2400), (1100, 1500)}
    assert all(value > 0.9999 for *_, value in pairs)
    assert near_duplicates(thumbnails[:0], labels[:0]) == []


def test_many_alike_pictures_are_told_once_each_in_little_memory() -> None:
    thumbnails = np.repeat(
        np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8), 3000, 0
    )
    labels = np.zeros(3000, np.int64)
    labels[1500] = 1
    tracemalloc.start()
    try:
        pairs = near_duplicates(thumbnails, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sorted(right for _, right, _ in pairs) == list(range(1, 3000))
    # The first of the group, or the first with another label.
    assert {left for left, right, _ in pairs if right <= 1500} == {0}
    assert {left for left, right, _ in pairs if right > 1500} == {1500}
    assert peak < 60e6
