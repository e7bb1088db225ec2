"""Metrics of a run, epoch by epoch, and the choice of the best epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from catdog_edge.training.data.dataset import write_csv


@dataclass(frozen=True)
class EpochMetrics:
    """One line of `results.csv`; the training metrics are those of the augmented images."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    pictures_per_second: float


@dataclass(frozen=True)
class StepMetrics:
    """The state after a step; `loss` and `accuracy` are means over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    pictures_per_second: float
    seconds_left: float


def best_epoch(epochs: Sequence[EpochMetrics], samples: int) -> EpochMetrics | None:
    """Choose the epoch to keep: the lowest validation loss among the most accurate ones.

    Accuracies within one standard error of the highest so far, on `samples` validation images,
    count as equal (the one-standard-error rule of Breiman and others: Classification and
    Regression Trees, 1984). It is decided epoch by epoch, since only the best weights are kept.
    """
    best: EpochMetrics | None = None
    highest = 0.0
    for epoch in epochs:
        highest = max(highest, epoch.val_accuracy)
        enough = highest - math.sqrt(highest * (1 - highest) / samples)
        if epoch.val_accuracy < enough:
            continue
        if best is None or best.val_accuracy < enough or epoch.val_loss < best.val_loss:
            best = epoch
    return best


def write_results(path: Path, epochs: Sequence[EpochMetrics]) -> None:
    """Write `results.csv`: one row per epoch."""
    rows = (
        [f"{one:.6g}" if isinstance(one, float) else one for one in astuple(epoch)]
        for epoch in epochs
    )
    write_csv(path, [field.name for field in fields(EpochMetrics)], rows)
