"""Rejection: choose the threshold of `neither`, and evaluate how well it separates the classes.

A score is 0..1, high where a class is seen. Images come in groups, one per source and kind, with
the same weight whatever their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError
from catdog_edge.training.array_types import Float32, Float64, Pixels
from catdog_edge.training.data.dataset import Split
from catdog_edge.training.data.negatives import DRAWN, Negatives, drawn_negatives
from catdog_edge.training.evaluation.metrics import wilson

Value = TypeVar("Value", bound=np.generic)
Groups = Mapping[str, npt.NDArray[np.floating[Any]]]  # scores by group, none of them empty

TABLE_RATES = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)  # true positive rates in a table of thresholds


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen on validation images.

    Attributes:
        kind: `eer`, the equal error rate: the share of the classes that is wrongly rejected
            equals the share of negatives that is wrongly accepted. `tpr`, the true positive
            rate: at least `rate` of the classes are accepted. `tnr`, the true negative rate: at
            least `rate` of the negatives are rejected.
        rate: 0..1; not used by `eer`.

    Examples:
        >>> ThresholdRule.parse("tpr:0.99")
        ThresholdRule(kind='tpr', rate=0.99)
    """

    kind: str = "eer"
    rate: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Read `eer`, `tpr:RATE` or `tnr:RATE`, a rate between 0 and 1; else `CatdogError`."""
        if text == "eer":
            return cls()
        kind, _, rate = text.partition(":")
        try:
            if kind in ("tpr", "tnr") and 0 < float(rate) < 1:
                return cls(kind, float(rate))
        except ValueError:
            pass
        raise CatdogError(
            f"--reject-at {text!r} is not a rule; give eer, tpr:0.99 (99 % of the classes are "
            "answered) or tnr:0.99 (99 % of the rest is rejected)"
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "eer" else f"{self.kind}:{self.rate:g}"


EER = ThresholdRule()


@dataclass(frozen=True)
class RejectionReport:
    """Metrics of a threshold; shares are 0..1."""

    threshold: float  # scores below it are answered `neither`
    pictures: int  # images of the classes
    kept: float  # the share of them that is accepted
    others: int  # negatives
    rejected: float  # the share of them that is rejected
    rejected_low: float  # the ends of its 95 % Wilson interval
    rejected_high: float
    auroc: float  # see `auroc`

    def __str__(self) -> str:
        return (
            f"{self.rejected:.2%} of {self.others:,} pictures of other things rejected "
            f"({self.rejected_low:.2%} to {self.rejected_high:.2%}), {self.kept:.2%} of "
            f"{self.pictures:,} of the classes answered; AUROC {self.auroc:.4f}"
        )


def choose_threshold(classes: Groups, negatives: Groups, rule: ThresholdRule = EER) -> float:
    """Choose a threshold by a rule on the error rates, each the mean over groups.

    By `eer` it is the middle of all thresholds at which the larger of the two error rates is within
    a standard error of its minimum. By `tpr` and `tnr` it is the middle of those that fulfil the
    rule and at which the other error rate is within a standard error of the least that is left.

    Args:
        classes: Scores or logits `[N]` of validation images of the classes, by group.
        negatives: The same of negatives.
        rule: The rule.

    Returns:
        The threshold, on the scale of the scores.
    """
    candidates = np.unique(np.concatenate([*classes.values(), *negatives.values()]))
    edges = np.concatenate([candidates[:1] - 1e-6, candidates, candidates[-1:] + 1e-6])
    middles = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    rejected = _mean_share_below(classes, middles)
    accepted = 1 - _mean_share_below(negatives, middles)
    harm, fulfilled = np.maximum(rejected, accepted), np.full(len(middles), True)
    if rule.kind == "tpr":
        harm, fulfilled = accepted, 1 - rejected >= rule.rate
    if rule.kind == "tnr":
        harm, fulfilled = rejected, 1 - accepted >= rule.rate
    least = float(harm[fulfilled].min())
    smallest = min(sum(map(len, groups.values())) for groups in (classes, negatives))
    # Without one error on n images the rate may still be about 1 / n.
    spread = math.sqrt(max(least * (1 - least), 1 / smallest) / smallest)
    alike = np.flatnonzero(fulfilled & (harm <= least + spread + 1e-9))
    return float((float(edges[alike[0]]) + float(edges[alike[-1] + 1])) / 2)


def choose_score_threshold(scores: Groups, negatives: Groups, rule: ThresholdRule = EER) -> float:
    """Choose a threshold of scores, within 0..1; see `choose_threshold`.

    The score of a negative may be 1 in float32. No threshold rejects it, so it counts as accepted.
    """
    # Beyond saturated scores the next threshold is outside the range that `Rejection` has.
    return min(max(choose_threshold(scores, negatives, rule), 0.0), 1.0)


def _mean_share_below(groups: Groups, thresholds: Float64) -> Float64:
    shares = [np.searchsorted(np.sort(one), thresholds) / len(one) for one in groups.values()]
    return np.asarray(np.mean(shares, axis=0))


def split_groups(values: npt.NDArray[Value], names: Sequence[str]) -> dict[str, npt.NDArray[Value]]:
    """Split values `[N,...]` by the group of each image; the groups are sorted by name."""
    index = np.array(names)
    return {str(name): values[index == name] for name in np.unique(index)}


def negative_groups(
    negatives: Negatives, split: Split, compute: Callable[[Pixels], npt.NDArray[Value]]
) -> dict[str, npt.NDArray[Value]]:
    """Compute values of the drawn scenes and of a split's photographs, by kind and source.

    `compute` takes images `uint8 [N,H,W,3]`, BGR, and returns values `[N,...]`.
    """
    found = {DRAWN: compute(drawn_negatives(negatives.steps))}
    photographs = negatives.photographs(split)
    if len(photographs):
        found |= split_groups(compute(photographs), negatives.groups(split))
    return found


@dataclass(frozen=True)
class ThresholdRow:
    """The accepted shares, 0..1, at one threshold, by group."""

    threshold: float
    classes: dict[str, float]
    negatives: dict[str, float]  # apart, because a source of the classes may have the same name


def threshold_table(classes: Groups, negatives: Groups, current: float) -> list[ThresholdRow]:
    """Compute the accepted share of each group at several thresholds, in rising order.

    Args:
        classes: Scores `[N]` of images of the classes, by group.
        negatives: The same of negatives.
        current: The threshold of the model, which has a row of its own.
    """
    scores = np.unique(np.concatenate(list(classes.values()))).astype(np.float64)
    middles = np.concatenate([scores[:1], (scores[:-1] + scores[1:]) / 2])
    answered = 1 - _mean_share_below(classes, middles)
    highest = {float(middles[np.flatnonzero(answered >= rate)[-1]]) for rate in TABLE_RATES}
    chosen = {current, choose_score_threshold(classes, negatives), *highest}

    def accepted(groups: Groups, threshold: float) -> dict[str, float]:
        return {name: float((scores >= threshold).mean()) for name, scores in groups.items()}

    return [
        ThresholdRow(one, accepted(classes, one), accepted(negatives, one))
        for one in sorted(chosen)
    ]


def evaluate_threshold(scores: Float32, others: Float32, threshold: float) -> RejectionReport:
    """Evaluate a threshold on scores `float32 [N]` of the classes and `[M]` of negatives."""
    rejected = int((others < threshold).sum())
    low, high = wilson(rejected, len(others))
    kept, count = float((scores >= threshold).mean()), len(others)
    return RejectionReport(
        threshold, len(scores), kept, count, rejected / count, low, high, auroc(scores, others)
    )


def evaluate_groups(
    scores: Float32, negatives: Mapping[str, Float32], threshold: float
) -> dict[str, RejectionReport]:
    """Evaluate a threshold on each group of negatives, and on all photographs, as `others`."""
    groups = dict(negatives)
    if len(groups) > 1:
        groups["others"] = np.concatenate([one for name, one in groups.items() if name != DRAWN])
    return {name: evaluate_threshold(scores, one, threshold) for name, one in groups.items()}


def auroc(scores: Float32, others: Float32) -> float:
    """Compute the area under the receiver operating characteristic, 0..1; ties count half.

    It is the probability that an image of the classes, scores `float32 [N]`, has a higher score
    than another, `float32 [M]` (Mann and Whitney, 1947).
    """
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(others))


def roc_curve(classes: Groups, others: Float32) -> tuple[Float64, Float64]:
    """Return the shares of `others` and of the classes at or above each threshold, rising from 0.

    Both are `float64 [T]`: false and true positive rate, this the mean over the groups of the
    classes. The area under the curve is the mean of the groups' `auroc`.
    """
    thresholds = np.unique(np.concatenate([*classes.values(), others]))[::-1]
    below = (_mean_share_below(one, thresholds) for one in ({"": others}, classes))
    accepted, kept = (np.concatenate([np.zeros(1), 1 - one]) for one in below)
    return accepted, kept
