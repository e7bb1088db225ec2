"""When to answer `neither`: the threshold, and how well it tells the classes from all else.

Knows scores, 0..1, high where a class is seen; nothing of networks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.training.evaluation.metrics import wilson

KEPT = 0.95
"""The share of the pictures of the classes that are still answered."""

Scores = npt.NDArray[np.float32]


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


def choose_threshold(scores: Scores) -> float:
    """The highest threshold that leaves `KEPT` of the classes' pictures answered.

    Args:
        scores: `float32 [N]` of validation pictures of the classes.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    return float(ordered[int(np.floor((1 - KEPT) * len(ordered)))])


def report(scores: Scores, others: Scores, threshold: float) -> RejectionReport:
    """Measure a threshold.

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
