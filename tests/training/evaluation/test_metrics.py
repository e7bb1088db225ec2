"""The statistics against published values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from catdog_edge.training.evaluation.metrics import (
    Z,
    calibration_bins,
    confusion,
    expected_calibration_error,
    log_loss,
    mcnemar_exact,
    paired_difference,
    precision_recall,
    softmax,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_limits(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends_has_its_closed_form_and_mirrors():
    assert wilson(0, 50) == (0.0, pytest.approx(Z**2 / (50 + Z**2)))
    assert wilson(50, 50) == (pytest.approx(50 / (50 + Z**2)), 1.0)
    low, high = wilson(7, 30)
    assert wilson(23, 30) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_wilson_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    draws = rng.binomial(200, 0.93, size=4000)
    covered = np.mean([low <= 0.93 <= high for low, high in (wilson(int(d), 200) for d in draws)])
    assert 0.93 <= covered <= 0.97


def test_mcnemar_is_the_binomial_tail():
    # One against seven: 2 * (1 + 8) / 256, the value Fagerland, Lydersen and Laake print for
    # Bentur's airway data (BMC Medical Research Methodology 13 (2013) 91): 0.070.
    assert mcnemar_exact(1, 7) == pytest.approx(18 / 256)
    assert mcnemar_exact(7, 1) == mcnemar_exact(1, 7)
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    by_hand = 2 * sum(math.comb(2200, k) for k in range(1001)) / 2**2200
    assert mcnemar_exact(1000, 1200) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def _pair(both, only_a, only_b, neither):
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return paired_difference(a, b)


@pytest.mark.parametrize(
    ("table", "limits"),
    [  # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875: Tango's
        # interval for Bentur's airway data and Cavo's responses.
        ((1, 1, 7, 12), (-0.517, -0.026)),
        ((59, 6, 16, 80), (-0.124, -0.005)),
    ],
)
def test_paired_difference_gives_published_limits(table, limits):
    difference, low, high = _pair(*table)
    assert (low, high) == pytest.approx(limits, abs=6e-4)
    assert difference == pytest.approx((table[1] - table[2]) / sum(table))


def test_paired_difference_mirrors_and_knows_its_ends():
    difference, low, high = _pair(20, 12, 2, 16)
    assert _pair(20, 2, 12, 16) == pytest.approx((-difference, -high, -low))
    zero = Z**2 / (50 + Z**2)
    assert _pair(30, 0, 0, 20) == pytest.approx((0.0, -zero, zero))
    assert _pair(0, 10, 0, 0)[::2] == (1.0, 1.0)
    assert low < difference < high


def test_paired_difference_limits_solve_the_score_equation():
    # At each limit the score statistic, with its variance from a grid search of the
    # constrained likelihood instead of the closed form, is +-z.
    only_a, only_b, n = 9, 4, 120
    _, low, high = _pair(90, only_a, only_b, n - 103)
    for delta, expected in ((low, Z), (high, -Z)):
        share = np.linspace(max(0.0, -delta) + 1e-9, (1 - delta) / 2 - 1e-9, 400_001)
        likelihood = (
            only_a * np.log(share + delta)
            + only_b * np.log(share)
            + (n - only_a - only_b) * np.log(1 - 2 * share - delta)
        )
        best = share[np.argmax(likelihood)]
        variance = n * (2 * best + delta - delta**2)
        assert (only_a - only_b - n * delta) / math.sqrt(variance) == pytest.approx(
            expected, abs=2e-3
        )


def test_paired_difference_refuses_arrays_that_do_not_pair():
    with pytest.raises(ValueError, match="one length"):
        paired_difference([True], [True, False])
    with pytest.raises(ValueError, match="one length"):
        paired_difference([], [])


def test_calibration_of_answers_that_are_as_right_as_they_say():
    # 0.8 confident and right 8 times of 10: no error. 0.6 confident and right always: 0.4 off.
    calm = np.tile([0.8, 0.2], (10, 1))
    assert expected_calibration_error(calm, [0] * 8 + [1] * 2) == pytest.approx(0.0)
    shy = np.tile([0.6, 0.4], (10, 1))
    assert expected_calibration_error(shy, [0] * 10) == pytest.approx(0.4)
    alike = [[0.61, 0.39], [0.65, 0.35]]  # of fifteen bins both are in one, of others they are not
    assert expected_calibration_error(alike, [0, 1]) == pytest.approx(0.63 - 0.5)
    both = np.concatenate([calm, shy])
    assert expected_calibration_error(both, [0] * 8 + [1] * 2 + [0] * 10) == pytest.approx(0.2)


def test_calibration_bins_hold_every_answer_once():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet([1, 1, 1], size=500).astype(np.float32)
    probabilities[0] = [1.0000001, 0, 0]  # float32 rows may sum to a rounding above one
    labels = rng.integers(0, 3, size=500)
    groups = calibration_bins(probabilities, labels)
    assert sum(group.count for group in groups) == 500
    assert len(groups) == 15
    assert all(g.low - 1e-6 <= g.confidence <= g.high + 1e-6 for g in groups if g.count)
    assert groups[0].count == 0  # three classes: the likeliest has at least a third
    assert math.isnan(groups[0].accuracy)


def test_log_loss_has_its_closed_forms():
    assert log_loss([[0.5, 0.5], [0.5, 0.5]], [0, 1]) == pytest.approx(math.log(2))
    assert log_loss([[0.9, 0.1], [0.2, 0.8]], [0, 1]) == pytest.approx(
        -(math.log(0.9) + math.log(0.8)) / 2
    )
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(-math.log(1e-12))
    assert log_loss(np.float32([[1.0000001, 0]]), [0]) == 0
    with pytest.raises(ValueError, match="no answers"):
        log_loss(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match="expected probabilities"):
        log_loss([[0.5, 0.5]], [0, 1])


def test_confusion_precision_and_recall():
    matrix = confusion([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1], 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    precision, recall = precision_recall(matrix)
    assert precision[:2] == pytest.approx([1.0, 0.5])
    assert recall[:3] == pytest.approx([2 / 3, 1.0, 0.0])
    assert math.isnan(precision[2])  # never predicted
    assert math.isnan(recall[3])  # never occurs
    with pytest.raises(ValueError, match=r"0\.\.1"):
        confusion([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match="one length"):
        confusion([0], [0, 1], 2)


def test_an_edge_belongs_to_the_lower_bin():
    edge = calibration_bins([[0.5, 0.5], [0.51, 0.49]], [0, 0], bins=2)
    assert [group.count for group in edge] == [1, 1]


def test_softmax_is_stable_and_sums_to_one() -> None:
    answer = softmax(np.float32([[1000.0, 999.0], [-1e4, 1e4]]))
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-6)
    assert answer[0, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
