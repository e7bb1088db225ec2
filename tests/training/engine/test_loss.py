"""Class weights in the loss: only where the classes are imbalanced, and what they do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.loss import CrossEntropy, class_weights


def labels(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("counts", [(10, 10), (15, 10), (10, 15, 12), (1, 1, 1)])
def test_classes_of_nearly_one_size_are_not_weighted(counts: tuple[int, ...]) -> None:
    assert class_weights(labels(*counts), len(counts)) is None


@pytest.mark.parametrize("counts", [(16, 10), (90, 10), (5, 50, 500)])
def test_each_class_weighs_the_same_in_sum_and_an_image_one_on_average(
    counts: tuple[int, ...],
) -> None:
    weights = class_weights(labels(*counts), len(counts))
    assert weights is not None
    assert weights * counts == pytest.approx(np.full(len(counts), sum(counts) / len(counts)))
    assert (weights * counts).sum() / sum(counts) == pytest.approx(1)


def test_what_is_drawn_counts_and_not_what_is_there() -> None:
    shares = np.concatenate([np.full(30, 0.5 / 30), np.full(10, 0.5 / 10)])
    assert class_weights(labels(30, 10), 2, shares) is None
    even = class_weights(labels(20, 20), 2, np.repeat([0.04, 0.01], 20))
    assert even == pytest.approx([0.625, 2.5])


def test_a_class_without_images_does_not_disturb_the_others() -> None:
    weights = class_weights(labels(30, 0, 10), 3)
    assert weights == pytest.approx([2 / 3, 1, 2])


def test_without_weights_it_is_torchs_loss_to_the_bit() -> None:
    torch.manual_seed(0)
    outputs, truth = torch.randn(7, 3), torch.randint(0, 3, (7,))
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(outputs, truth)
    assert torch.equal(CrossEntropy(0.1)(outputs, truth), theirs)


def test_a_rare_image_counts_as_often_as_its_weight_says_and_negatives_once() -> None:
    weights = np.array([0.5, 4.0])
    outputs, truth = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 2, 1])
    each = torch.nn.functional.cross_entropy(outputs, truth, reduction="none")
    expected = (each * torch.tensor([0.5, 4.0, 1.0])[truth]).mean()
    assert CrossEntropy(0.0, weights)(outputs, truth).item() == pytest.approx(expected.item())


def test_the_parts_of_a_batch_add_up_to_the_whole() -> None:
    criterion = CrossEntropy(0.1, np.array([0.5, 4.0]))
    outputs, truth = torch.randn(9, 2), torch.tensor([0, 0, 0, 0, 1, 0, 0, 1, 0])
    parts = [(outputs[slice(rank, None, 2)], truth[slice(rank, None, 2)]) for rank in (0, 1)]
    added = sum(criterion(*part) * len(part[1]) for part in parts) / 9
    assert added.item() == pytest.approx(criterion(outputs, truth).item(), rel=1e-6)
