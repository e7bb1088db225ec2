"""Calibrate probabilities and scores by scaling the logits.

C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: dividing the logits by one
number, fitted on validation, changes no prediction and corrects most over-confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from catdog_edge.training.array_types import Float32, Float64, Labels
from catdog_edge.training.evaluation.metrics import log_loss, softmax
from catdog_edge.training.evaluation.rejection import choose_threshold

LIMITS = (0.25, 8.0)
"""On a split without errors the best temperature is zero; nobody should believe that."""


def fit_temperature(logits: Float32, labels: Labels) -> float:
    """Find the temperature with the least log loss of logits `float32 [N,K]` on validation.

    The log loss is convex in 1/T, so the search finds its one minimum.
    """

    def loss(temperature: float) -> float:
        return log_loss(softmax(logits, temperature), labels)

    return _golden_section(loss, *LIMITS, 60)


def fit_known_scale(
    classes: Mapping[str, Float32], negatives: Mapping[str, Float32]
) -> tuple[float, float]:
    """Fit what spreads the score `known`, with 0.5 at the threshold of equal errors.

    The scale has the least log loss on validation images, as a temperature has (Platt, 1999).
    Logits are `float32 [N,K+1]` by group, that of no class last; each group counts alike.

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
    """Return logits `float32 [N,K+1]` as `calibrate_known` makes the network compute them."""
    changed = values * np.float32(scale)
    changed[:, -1] += np.float32(shift)
    return np.asarray(changed, dtype=np.float32)


def known_logit(values: Float32) -> Float64:
    """Return the logit of the score `known`: 0 where both are equally likely."""
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
