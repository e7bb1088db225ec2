from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the metrics are part of training; install [train]")
pytestmark = pytest.mark.train

from exporters.checks.comparison import compare_answers

REFERENCE = np.array(
    [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.4, 0.38, 0.22], [0.1, 0.3, 0.6]], np.float32
)
CANDIDATE = np.array(
    [[0.3, 0.7, 0.0], [0.2, 0.6, 0.2], [0.38, 0.4, 0.22], [0.1, 0.3, 0.6]], np.float32
)


def test_agreement_counts_all_images_and_the_clear_ones() -> None:
    found = compare_answers(REFERENCE, CANDIDATE)
    assert found.images == 4
    assert found.agreement == 0.5
    assert (found.clear, found.clear_flips) == (3, 1)
    assert found.clear_agreement == pytest.approx(2 / 3)
    assert found.difference == pytest.approx(0.6)
    assert found.mean_difference == pytest.approx((0.6 + 0.6 + 0.1 + 0.1 + 0.02 + 0.02) / 12)
    assert found.accuracy is None


def test_flips_say_who_predicts_what() -> None:
    first, second = compare_answers(REFERENCE, CANDIDATE, np.array([1, 1, 2, 2])).flips
    assert (first.index, first.truth, first.reference, first.candidate) == (0, 1, 0, 1)
    assert first.reference_probability == pytest.approx(0.9)
    assert first.candidate_probability == pytest.approx(0.7)
    assert first.margin == pytest.approx(0.8)
    assert first.difference == pytest.approx(0.6)
    assert (second.index, second.truth, second.reference, second.candidate) == (2, 2, 0, 1)
    assert compare_answers(REFERENCE, CANDIDATE).flips[0].truth == -1


def test_accuracy_is_paired() -> None:
    accuracy = compare_answers(REFERENCE, CANDIDATE, np.array([1, 1, 0, 2])).accuracy
    assert accuracy is not None
    assert (accuracy.reference, accuracy.candidate, accuracy.change) == (0.75, 0.75, 0.0)
    assert (accuracy.only_reference, accuracy.only_candidate) == (1, 1)
    assert accuracy.low < 0 < accuracy.high
    assert accuracy.mcnemar_p == 1.0
    worse = compare_answers(REFERENCE, CANDIDATE, np.array([0, 1, 0, 2])).accuracy
    assert worse is not None
    assert (worse.change, worse.only_reference, worse.only_candidate) == (-0.5, 2, 0)
    assert str(worse).startswith("-50.00 points (")


def test_an_image_is_clear_from_a_margin_on() -> None:
    reference = np.array([[0.53, 0.47], [0.52, 0.48]], np.float32)
    found = compare_answers(reference, reference[:, ::-1])
    assert (found.clear, found.clear_flips) == (1, 1)
    alike = np.full((2, 2), 0.5, np.float32)
    assert compare_answers(alike, alike).clear_agreement == 1.0


@pytest.mark.parametrize(
    ("candidate", "truth"),
    [(CANDIDATE[:3], None), (CANDIDATE, np.array([0])), (CANDIDATE[:, :2], None)],
)
def test_answers_to_different_images_are_refused(
    candidate: np.ndarray, truth: np.ndarray | None
) -> None:
    with pytest.raises(ValueError, match="do not belong to the same images"):
        compare_answers(REFERENCE, candidate, truth)
    with pytest.raises(ValueError, match="no images"):
        compare_answers(REFERENCE[:0], CANDIDATE[:0])
