"""Calibrate probabilities and scores by scaling the logits.

Dividing the logits by a temperature that is fitted on validation images changes no prediction and
corrects most over-confidence (C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from catdog_edge.training.array_types import Float32, Float64, Labels
from catdog_edge.training.evaluation.metrics import log_loss, softmax
from catdog_edge.training.evaluation.rejection import choose_threshold

LIMITS = (0.25, 8.0)  # bounds of the temperature, whose optimum is 0 where there are no errors


def fit_temperature(logits: Float32, labels: Labels) -> float:
    """Find the temperature that minimises the log loss of validation images.

    The log loss is convex in 1/T, so the search finds its one minimum.

    Args:
        logits: `float32 [N,K]`, of the classes alone.
        labels: The true classes, `int64 [N]`.

    Returns:
        The divisor of the logits, within `LIMITS`.
    """

    def loss(temperature: float) -> float:
        return log_loss(softmax(logits, temperature), labels)

    return _golden_section(loss, *LIMITS, 60)


def fit_known_scale(
    classes: Mapping[str, Float32], negatives: Mapping[str, Float32]
) -> tuple[float, float]:
    """Fit the scale and the shift that calibrate the score `known` (Platt, 1999).

    The scale minimises the log loss of validation images, each group with the same weight; the
    shift puts the threshold of equal error rates at 0.5.

    Args:
        classes: Logits `float32 [N,K+1]` of images of the classes by group, that of negatives last.
        negatives: The same of negatives.

    Returns:
        Scale and shift for `calibrate_known`: all logits are multiplied by the scale, then the
        shift is added to the last.
    """

    def fitted(scale: float) -> tuple[float, float]:
        seen, unseen = (
            {name: known_logit(values * np.float32(scale)) for name, values in groups.items()}
            for groups in (classes, negatives)
        )
        shift = choose_threshold(seen, unseen)
        losses = [float(np.logaddexp(0, -(z - shift)).mean()) for z in seen.values()]
        more = [float(np.logaddexp(0, z - shift).mean()) for z in unseen.values()]
        return float(np.mean(losses) + np.mean(more)), shift

    scale = _golden_section(lambda scale: fitted(scale)[0], 0.02, 2.0, 25)
    return scale, fitted(scale)[1]


def calibrated(values: Float32, scale: float, shift: float) -> Float32:
    """Apply to logits `float32 [N,K+1]` what `calibrate_known` does to a network's; a new array."""
    changed = values * np.float32(scale)
    changed[:, -1] += np.float32(shift)
    return np.asarray(changed, dtype=np.float32)


def known_logit(values: Float32) -> Float64:
    """Compute the logit of the score `known`, `float64 [N]`, from logits `float32 [N,K+1]`."""
    wide = values.astype(np.float64)
    return np.asarray(np.logaddexp.reduce(wide[:, :-1], axis=1) - wide[:, -1])


def _golden_section(loss: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Minimise a function of a factor, searching on its logarithm."""
    low, high = math.log(low), math.log(high)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(steps):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(math.exp(left)) <= loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
