"""Rejection (`neither`): the choice of its threshold, and its evaluation.

Scores are 0..1, high where a class is seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.training.evaluation.metrics import wilson

KEPT = 0.95
"""The share of the images of the classes that are not rejected."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RejectionReport:
    """Metrics of a threshold.

    Attributes:
        threshold: Lower scores are rejected.
        pictures: Number of images of the classes.
        kept: The share of them that is not rejected.
        others: Number of negatives.
        rejected: The share of them that is rejected.
        rejected_low: Lower end of its 95 % Wilson interval.
        rejected_high: Upper end.
        auroc: Area under the ROC curve.
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


def choose_threshold(scores: Scores) -> float:
    """Return the highest threshold that keeps the share `KEPT` of the images of the classes.

    Args:
        scores: `float32 [N]` of validation images of the classes.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    return float(ordered[int(np.floor((1 - KEPT) * len(ordered)))])


def evaluate_threshold(scores: Scores, negatives: Scores, threshold: float) -> RejectionReport:
    """Evaluate a threshold.

    Args:
        scores: `float32 [N]` of images of the classes.
        negatives: `float32 [M]` of negatives; M at least 1.
        threshold: See `RejectionReport`.
    """
    rejected = int((negatives < threshold).sum())
    low, high = wilson(rejected, len(negatives))
    return RejectionReport(
        threshold=threshold,
        pictures=len(scores),
        kept=float((scores >= threshold).mean()),
        others=len(negatives),
        rejected=rejected / len(negatives),
        rejected_low=low,
        rejected_high=high,
        auroc=auroc(scores, negatives),
    )


def auroc(scores: Scores, negatives: Scores) -> float:
    """Compute the area under the ROC curve, by ranks (Mann and Whitney, 1947).

    Args:
        scores: `float32 [N]` of images of the classes.
        negatives: `float32 [M]` of negatives.

    Returns:
        0..1; ties count half.
    """
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    return float((below + up_to).mean() / 2 / len(negatives))
