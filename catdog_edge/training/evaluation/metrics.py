"""Statistics of predictions, with 95 % intervals, in NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.training.array_types import Float32, Float64, Labels

Z = NormalDist().inv_cdf(0.975)  # the two-sided 95 % point of the normal distribution, 1.95996


def softmax(values: Float32, temperature: float = 1.0) -> Float32:
    """Compute the softmax of `values / temperature`, `float32 [...,K]`, over the last axis."""
    scaled = values / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float32)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion, 0..1 (E. B. Wilson, JASA 22, 1927).

    Raises `ValueError` for no trials, or more successes than trials.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    share = successes / n
    shrunk = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # At the two ends the formula gives 0 and 1 but for rounding.
    return (shrunk - half if successes else 0.0), (shrunk + half if successes < n else 1.0)


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947).

    Of two classifiers on the same images, `b` are right for the first alone, `c` for the second;
    raises `ValueError` where one is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative, got {b} and {c}")
    n = b + c
    term, tail = 1, 0
    for k in range(min(b, c) + 1):  # integers: exact, whatever n is
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike
) -> tuple[float, float, float]:
    """Compute the accuracy of A minus that of B on the same images, with its interval.

    Tango's score interval (Statistics in Medicine 17, 1998) keeps its level for few discordant
    images, and has a width where there are none. The arrays tell which images are right.

    Returns:
        The difference and its lower and upper limit, -1..1. Negative: A is worse.

    Raises:
        ValueError: The two differ in length, or are empty.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"expected two arrays of one length, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    low = -_tango_upper(only_b, only_a, a.size)
    return (only_a - only_b) / a.size, low, _tango_upper(only_a, only_b, a.size)


def _tango_upper(b: int, c: int, n: int) -> float:
    """Return the upper limit of (b - c) / n, where the score statistic equals -z."""

    def score(delta: float) -> float:
        # Maximum likelihood estimate of the share of `c` given the difference.
        linear = -b - c + (2 * n - b + c) * delta
        constant = -c * delta * (1 - delta)
        share = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        return (b - c - n * delta) / math.sqrt(variance) if variance > 0 else math.inf

    low, high = (b - c) / n, 1.0
    for _ in range(60):  # halving 60 times is exact to a double
        middle = (low + high) / 2
        if score(middle) > -Z:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions whose confidence is in (low, high]; the first bin includes 0."""

    low: float
    high: float
    count: int
    confidence: float  # mean, `nan` where there are none
    accuracy: float  # 0..1, `nan` where there are none


def calibration_bins(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15
) -> list[CalibrationBin]:
    """Group predictions `float [N,K]` of classes `int [N]` by confidence, in bins of equal width.

    Raises `ValueError` where shapes do not fit, or are empty.
    """
    values, truth = _checked(probabilities, labels)
    confidence = values.max(axis=1).astype(np.float64)
    right = values.argmax(axis=1) == truth
    # float32 rows that sum to one may hold a value a rounding above it.
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    result = []
    for number in range(bins):
        inside = index == number
        means = (
            float(one[inside].mean()) if inside.any() else math.nan for one in (confidence, right)
        )
        edges = number / bins, (number + 1) / bins
        result.append(CalibrationBin(*edges, int(inside.sum()), *means))
    return result


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the expected calibration error, 0 (perfect) .. 1; see `calibration_bins`.

    C. Guo et al., "On calibration of modern neural networks", ICML 2017, with their 15 bins.
    """
    groups = [one for one in calibration_bins(probabilities, labels) if one.count]
    gap = sum(one.count * abs(one.accuracy - one.confidence) for one in groups)
    return gap / sum(one.count for one in groups)


def log_loss(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Compute the mean negative log-likelihood, in nats, of true classes `int [N]`.

    The probabilities, `float [N,K]`, are clipped at 1e-12. Raises `ValueError` where shapes do not
    fit, or are empty.
    """
    values, truth = _checked(probabilities, labels)
    given = values[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.clip(given, 1e-12, 1.0)).mean())


def confusion(labels: npt.ArrayLike, predicted: npt.ArrayLike, k: int) -> Labels:
    """Count predictions `int [N]`: `int64 [k,k]`, a row per true class, a column per predicted.

    Raises `ValueError` where the two differ in length, or a class is not in 0..k-1.
    """
    truth, answer = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != answer.shape or truth.ndim != 1:
        raise ValueError(f"expected two arrays of one length, got {truth.shape} and {answer.shape}")
    for values in (truth, answer):
        if values.size and not (values.min() >= 0 and values.max() < k):
            raise ValueError(f"classes must be in 0..{k - 1}")
    return np.bincount(truth * k + answer, minlength=k * k).reshape(k, k).astype(np.int64)


def precision_recall(matrix: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Compute precision and recall per class from a `confusion` matrix.

    Returns:
        `float64 [K]` each, 0..1; `nan` for a class that was never predicted (precision) or never
        occurs (recall).
    """
    counts = np.asarray(matrix, dtype=np.float64)
    hits = counts.diagonal()
    with np.errstate(invalid="ignore"):
        return hits / counts.sum(axis=0), hits / counts.sum(axis=1)


def _checked(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating[Any]], Labels]:
    values = np.asarray(probabilities)
    truth = np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise ValueError(
            f"expected probabilities [N,K] and labels [N], got {values.shape} and {truth.shape}"
        )
    if not len(truth):
        raise ValueError("there are no answers to measure")
    return values, truth
