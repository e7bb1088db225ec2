"""Which epoch is kept: by the loss, among those whose accuracy is as good."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")

from catdog_edge.training.engine.history import EpochMetrics, best_epoch

pytestmark = pytest.mark.train


def rows(*figures: tuple[float, float]) -> list[EpochMetrics]:
    """Of (accuracy, loss) of each epoch."""
    return [
        EpochMetrics(number, 0.1, 0.5, 0.9, loss, accuracy, 1.0, 100.0)
        for number, (accuracy, loss) in enumerate(figures, start=1)
    ]


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([(0.90, 0.3)], 1),
        # One picture of two thousand more is chance; the loss is not.
        ([(0.9914, 0.0476), (0.9910, 0.0392)], 2),
        ([(0.9910, 0.0392), (0.9914, 0.0476)], 1),
        # A point less is none.
        ([(0.99, 0.05), (0.98, 0.03)], 1),
        # What was as good as the best of then is left behind.
        ([(0.95, 0.10), (0.99, 0.20)], 2),
        # No creeping down in steps that are each too small to count.
        ([(0.990, 0.10), (0.989, 0.09), (0.987, 0.08), (0.985, 0.07)], 2),
        # Alike in both: the earlier one.
        ([(0.99, 0.05), (0.99, 0.05)], 1),
    ],
)
def test_the_lowest_loss_wins_where_accuracy_is_as_good(figures, kept):
    best = best_epoch(rows(*figures), 2000)
    assert best is not None
    assert best.epoch == kept


def test_on_few_pictures_little_can_be_told_apart():
    figures = rows((0.95, 0.3), (0.91, 0.2))
    assert best_epoch(figures, 20).epoch == 2
    assert best_epoch(figures, 2000).epoch == 1


def test_all_right_leaves_no_room():
    assert best_epoch(rows((1.0, 0.2), (0.999, 0.1), (1.0, 0.15)), 1000).epoch == 3


def test_before_the_first_epoch_there_is_none():
    assert best_epoch([], 10) is None
