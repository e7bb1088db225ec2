"""When to answer `neither`: the threshold, and how well it separates the classes from the rest.

A score is 0..1, high where a class is seen. Images come in groups, one per source and kind, which
count alike whatever their size: a large source does not drown a small one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError
from catdog_edge.training.evaluation.metrics import wilson

Scores = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Value = TypeVar("Value", bound=np.generic)
Groups = Mapping[str, npt.NDArray[np.floating[Any]]]
"""Scores by the name of their group, none of them empty."""

TABLE_RATES = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
"""Shares of the classes that are answered, one row each of a table of thresholds."""


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen on validation images.

    Attributes:
        kind: `eer`, the equal error rate: as many images of the classes are wrongly rejected as
            others are wrongly accepted. `tpr`, the true positive rate: at least `rate` of the
            classes are answered. `tnr`, the true negative rate: at least `rate` of the rest is
            rejected.
        rate: 0..1, of `tpr` and `tnr`.

    Example:
        >>> ThresholdRule.parse("tpr:0.99")
        ThresholdRule(kind='tpr', rate=0.99)
    """

    kind: str = "eer"
    rate: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Read `eer`, `tpr:RATE` or `tnr:RATE`.

        Raises:
            CatdogError: It is none of these, or the rate is not between 0 and 1.
        """
        kind, _, rate = text.partition(":")
        try:
            if kind == "eer" and not rate:
                return cls()
            if kind in ("tpr", "tnr") and 0 < float(rate) < 1:
                return cls(kind, float(rate))
        except ValueError:
            pass
        raise CatdogError(
            f"--reject-at {text!r} is no rule; give eer, tpr:0.99 (99 % of the classes are "
            "answered) or tnr:0.99 (99 % of the rest is rejected)"
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "eer" else f"{self.kind}:{self.rate:g}"


@dataclass(frozen=True)
class RejectionReport:
    """What a threshold does.

    Attributes:
        threshold: Scores below it are answered `neither`.
        pictures: Pictures of the classes.
        kept: The share of them that is answered.
        others: Pictures of none of the classes.
        rejected: The share of them that is not answered.
        rejected_low: Lower end of its 95 % Wilson interval.
        rejected_high: Upper end.
        auroc: The chance that a picture of a class has the higher score of a pair.
    """

    threshold: float
    pictures: int
    kept: float
    others: int
    rejected: float
    rejected_low: float
    rejected_high: float
    auroc: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rejected:.2%} of {self.others:,} pictures of other things rejected "
            f"({self.rejected_low:.2%} to {self.rejected_high:.2%}), {self.kept:.2%} of "
            f"{self.pictures:,} of the classes answered; AUROC {self.auroc:.4f}"
        )


def known_logit(values: npt.NDArray[np.float32]) -> Floats:
    """The logit of the score `known`: 0 where a class and none of them are equally likely.

    Args:
        values: `float32 [N,K+1]`, the logit of no class last.

    Returns:
        `float64 [N]`.
    """
    wide = values.astype(np.float64)
    return np.asarray(np.logaddexp.reduce(wide[:, :-1], axis=1) - wide[:, -1])


def choose_threshold(
    classes: Groups, negatives: Groups, rule: ThresholdRule | None = None
) -> float:
    """Choose the threshold that does the least harm, by groups that count alike.

    By `eer` it is the middle of all thresholds whose harm (the larger of both error rates) is
    within a standard error of the least, so it keeps a distance from crowds of scores. By `tpr` and
    `tnr` it is the middle between the last score that fulfils the rule and the next.

    Args:
        classes: Scores, or logits, of validation images of the classes.
        negatives: Those of images of none of the classes.
        rule: `None`: `eer`.

    Returns:
        A threshold on the scale of the scores.
    """
    rule = rule or ThresholdRule()
    candidates = np.unique(np.concatenate([*classes.values(), *negatives.values()]))
    edges = np.concatenate([candidates[:1] - 1e-6, candidates, candidates[-1:] + 1e-6])
    middles = (edges[:-1].astype(np.float64) + edges[1:]) / 2
    rejected = _mean_share_below(classes, middles)
    accepted = 1 - _mean_share_below(negatives, middles)
    if rule.kind == "tpr":
        return float(middles[np.flatnonzero(1 - rejected >= rule.rate)[-1]])
    if rule.kind == "tnr":
        return float(middles[np.flatnonzero(1 - accepted >= rule.rate)[0]])
    harm = np.maximum(rejected, accepted)
    least = float(harm.min())
    smallest = min(sum(map(len, groups.values())) for groups in (classes, negatives))
    # Without one error on n images the rate may still be about 1 / n.
    spread = math.sqrt(max(least * (1 - least), 1 / smallest) / smallest)
    alike = np.flatnonzero(harm <= least + spread + 1e-9)
    return float((float(edges[alike[0]]) + float(edges[alike[-1] + 1])) / 2)


def _mean_share_below(groups: Groups, thresholds: Floats) -> Floats:
    shares = [
        np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)
        for scores in groups.values()
    ]
    return np.asarray(np.mean(shares, axis=0))


def fit_known_scale(
    classes: Mapping[str, npt.NDArray[np.float32]], negatives: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[float, float]:
    """Fit what spreads the score `known`, with 0.5 at the threshold of equal errors.

    The scale has the least log loss on validation images, as a temperature has (Platt, 1999), by
    golden-section search on its logarithm; each group counts alike.

    Args:
        classes: Logits `float32 [N,K+1]` by group, see `known_logit`.
        negatives: Those of images of none of the classes.

    Returns:
        Scale and shift for `calibrate_known`: all logits are multiplied by the scale, then the
        shift is added to the last.
    """

    def fitted(log_scale: float) -> tuple[float, float, float]:
        scale = math.exp(log_scale)
        seen = {name: known_logit(values * np.float32(scale)) for name, values in classes.items()}
        unseen = {
            name: known_logit(values * np.float32(scale)) for name, values in negatives.items()
        }
        shift = choose_threshold(seen, unseen)
        losses = [float(np.logaddexp(0, -(z - shift)).mean()) for z in seen.values()]
        more = [float(np.logaddexp(0, z - shift).mean()) for z in unseen.values()]
        return float(np.mean(losses) + np.mean(more)), scale, shift

    low, high = math.log(0.02), math.log(2.0)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(25):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if fitted(left)[0] <= fitted(right)[0]:
            high = right
        else:
            low = left
    _, scale, shift = fitted((low + high) / 2)
    return scale, shift


def calibrated(
    values: npt.NDArray[np.float32], scale: float, shift: float
) -> npt.NDArray[np.float32]:
    """Return logits `float32 [N,K+1]` as `calibrate_known` makes the network compute them."""
    changed = values * np.float32(scale)
    changed[:, -1] += np.float32(shift)
    return np.asarray(changed, dtype=np.float32)


def split_groups(values: npt.NDArray[Value], names: Sequence[str]) -> dict[str, npt.NDArray[Value]]:
    """Split values `[N,...]` by the name of each image's group, in the order of the names."""
    index = np.array(names)
    return {str(name): values[index == name] for name in np.unique(index)}


def threshold_table(
    classes: Groups, negatives: Groups, current: float | None = None
) -> list[tuple[float, dict[str, float]]]:
    """What other thresholds give: the share of each group that is answered.

    Args:
        classes: Scores by group.
        negatives: Likewise.
        current: The threshold of the model, a row of its own.

    Returns:
        Rows in rising order of the threshold, with the answered share by group; of the negatives
        that is the share wrongly accepted.
    """
    chosen = {choose_threshold(classes, negatives, ThresholdRule("tpr", r)) for r in TABLE_RATES}
    chosen.add(choose_threshold(classes, negatives))
    if current is not None:
        chosen.add(current)
    every = {**classes, **negatives}
    return [
        (one, {name: float((scores >= one).mean()) for name, scores in every.items()})
        for one in sorted(chosen)
    ]


def evaluate_threshold(scores: Scores, others: Scores, threshold: float) -> RejectionReport:
    """Evaluate a threshold.

    Args:
        scores: `float32 [N]` of pictures of the classes.
        others: `float32 [M]` of pictures of none of them; M at least 1.
        threshold: See `RejectionReport`.
    """
    rejected = int((others < threshold).sum())
    low, high = wilson(rejected, len(others))
    return RejectionReport(
        threshold=threshold,
        pictures=len(scores),
        kept=float((scores >= threshold).mean()),
        others=len(others),
        rejected=rejected / len(others),
        rejected_low=low,
        rejected_high=high,
        auroc=auroc(scores, others),
    )


def auroc(scores: Scores, others: Scores) -> float:
    """Area under the receiver operating characteristic, by ranks (Mann and Whitney, 1947).

    Args:
        scores: `float32 [N]` of pictures of the classes.
        others: `float32 [M]` of pictures of none of them.

    Returns:
        0..1; ties count half.
    """
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    return float((below + up_to).mean() / 2 / len(others))


def roc_curve(scores: Scores, others: Sequence[float] | Scores) -> tuple[Floats, Floats]:
    """The receiver operating characteristic.

    Returns:
        The shares of `others` and of `scores` at or above each threshold, rising from 0 to 1.
    """
    thresholds = np.unique(np.concatenate([scores, np.asarray(others)]))[::-1]
    rates = [
        1 - np.searchsorted(np.sort(np.asarray(one)), thresholds, side="left") / len(one)
        for one in (others, scores)
    ]
    start = np.zeros(1)
    return np.concatenate([start, rates[0]]), np.concatenate([start, rates[1]])
