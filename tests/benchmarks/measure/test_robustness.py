"""The choice of the images that are corrupted."""

from __future__ import annotations

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.measure.robustness import balanced
from catdog_edge.training.data.dataset import Item


def test_a_balanced_choice_takes_all_classes_alike_and_the_same_every_time():
    labels = [0] * 30 + [1] * 4
    items = [Item(f"{i}.jpg", label, "test", str(i)) for i, label in enumerate(labels)]
    chosen = balanced(items, 10)
    assert [sum(item.label == label for item in chosen) for label in (0, 1)] == [6, 4]
    assert balanced(list(reversed(items)), 10) == chosen
    assert len(balanced(items, 100)) == 34
