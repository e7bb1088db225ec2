from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from catdog_edge.training.data import near_duplicates as module
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


def test_the_most_alike_come_first_and_flat_images_are_alike_to_none() -> None:
    stripes = np.zeros((5, 16, 16), np.uint8)
    stripes[[0, 4], :8], stripes[[1, 3], ::2] = 255, 255
    stripes[2] = stripes[0] // 4 + np.eye(16, dtype=np.uint8) * 20
    (first, second, third) = near_duplicates(stripes, np.zeros(5, np.int64))
    assert (first, second) == ((0, 4, 1.0), (1, 3, 1.0))
    assert third[:2] == (0, 2)
    assert 0.985 < third[2] == pytest.approx(np.corrcoef(stripes[[0, 2]].reshape(2, -1))[0, 1])
    faint = np.full((2, 16, 16), 90, np.uint8)
    faint[:, :8, :8] = [[[92]], [[92]]]
    assert near_duplicates(faint, np.zeros(2, np.int64)) == []  # 64 of 2 levels: a norm of 14
    faint[:, :8, :8] = 93
    assert [pair[:2] for pair in near_duplicates(faint, np.zeros(2, np.int64))] == [(0, 1)]
    noise = np.random.default_rng(0).integers(0, 256, (200, 16, 16), dtype=np.uint8)
    pairs = near_duplicates(np.concatenate([noise, noise]), np.zeros(400, np.int64))
    assert len(pairs) == 200
    assert max(similarity for *_, similarity in pairs) == 1  # float32 sums exceed it


def test_of_too_many_images_the_first_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MAX_COMPARED == 50_000
    monkeypatch.setattr(module, "MAX_COMPARED", 3)
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    pairs = near_duplicates(noise[[0, 1, 0, 1]], np.zeros(4, np.int64))
    assert [pair[:2] for pair in pairs] == [(0, 2)]
