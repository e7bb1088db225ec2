"""Accuracy of every row, and its agreement with PyTorch's answers to the same images.

Rows classify one image at a time through the runtime's preprocessing: some quantized layers give
slightly different answers in a batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure.corruptions import Corruption, corrupt
from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image
from catdog_edge.training.array_types import Labels
from catdog_edge.training.data.dataset import Dataset, Item, write_csv
from catdog_edge.training.evaluation import metrics
from exporters.checks.comparison import Comparison, Probabilities, compare_answers

Predict = Callable[[Sequence[Image]], Probabilities]

CHUNK = 64  # frames in memory at once
SHORT = (
    "accuracy", "accuracy_low", "accuracy_high", "agreement", "agreement_low", "agreement_high",
    "difference", "difference_low", "difference_high", "mcnemar_p", "max_difference",
    "mean_difference", "expected_calibration_error", "flips",
)  # fmt: skip
"""The figures of `compare_rows` that are kept for other images than the test split."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that every row classifies, corrupted or as they are.

    `name` is `test`, `originals`, or that of a corruption.
    """

    name: str
    dataset: Dataset
    items: Sequence[Item]
    corruption: Corruption | None = None

    @cached_property
    def truth(self) -> Labels:
        """`int64 [N]`, the class indices."""
        return np.array([item.label for item in self.items], dtype=np.int64)

    def frame(self, index: int) -> Image:
        """Decode an image as the rows see it: `uint8 [H,W,3]` BGR."""
        item = self.items[index]
        frame = self.dataset.decode(item)
        return frame if self.corruption is None else corrupt(self.corruption, frame, item.digest)

    def frames(self) -> Iterator[Image]:
        """Decode all images in order."""
        return (self.frame(index) for index in range(len(self.items)))


@dataclass(frozen=True)
class Disagreement:
    """An image for which a row and PyTorch predict different classes; a line of the CSV file.

    `right` is `row`, `reference` or `neither`; `pictures` names the image set and `index` is the
    position in it; confidences are 0..1.
    """

    row: str
    file: str
    label: str
    reference_answer: str
    reference_confidence: float
    answer: str
    confidence: float
    right: str
    pictures: str
    index: int


def classify_all(
    predictors: Mapping[str, Predict],
    frames: Iterable[Image],
    progress: Callable[[int], object] | None = None,
) -> dict[str, Probabilities]:
    """Let every row classify every frame, one frame a call; each is decoded once for all rows.

    The frames are `uint8 [H,W,3]` BGR, of any size; `progress` takes the number of frames done.
    Returns `float32 [N,K]` by row; a row that answers with infinities or nan is a `ModelError`.
    """
    answers: dict[str, list[Probabilities]] = {row: [] for row in predictors}
    source = iter(frames)
    done = 0
    while chunk := list(itertools.islice(source, CHUNK)):
        for row, predict in predictors.items():
            found = [predict([frame]) for frame in chunk]
            if not np.isfinite(found).all():
                raise ModelError(
                    f"{row} returns values that are not numbers: its weights are damaged, or the "
                    "training diverged; train again with a lower --lr, or name other weights"
                )
            answers[row].extend(found)
        done += len(chunk)
        if progress is not None:
            progress(done)
    return {row: np.concatenate(parts) for row, parts in answers.items()}


def compare_rows(
    answers: Mapping[str, Probabilities], images: ImageSet
) -> tuple[dict[str, dict[str, Any]], list[Disagreement]]:
    """Compare the answers of every row, `float32 [N,K]`, with the first one's.

    Returns by row its `row_figures`, and all disagreements, the largest of each row first.
    """
    figures: dict[str, dict[str, Any]] = {}
    disagreements: list[Disagreement] = []
    reference = next(iter(answers.values()))
    for row, values in answers.items():
        comparison = compare_answers(reference, values, images.truth)
        figures[row] = row_figures(values, images.truth, comparison)
        disagreements += _disagreements(row, comparison, images)
    return figures, disagreements


def row_figures(values: Probabilities, truth: Labels, comparison: Comparison) -> dict[str, Any]:
    """Return the figures of a row that docs/bench-json.md lists under `answers`.

    `values` are `float32 [N,K]`, `truth` is `int64 [N]`.
    """
    images, accuracy = len(truth), comparison.accuracy
    assert accuracy is not None  # the truth is known
    correct = int((values.argmax(axis=1) == truth).sum())
    accuracy_low, accuracy_high = metrics.wilson(correct, images)
    agreement_low, agreement_high = metrics.wilson(images - len(comparison.flips), images)
    return {
        "pictures": images,
        "correct": correct,
        "accuracy": accuracy.candidate,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "log_loss": metrics.log_loss(values, truth),
        "expected_calibration_error": metrics.expected_calibration_error(values, truth),
        "agreement": comparison.agreement,
        "agreement_low": agreement_low,
        "agreement_high": agreement_high,
        "difference": accuracy.change,
        "difference_low": accuracy.low,
        "difference_high": accuracy.high,
        "only_row_right": accuracy.only_candidate,
        "only_reference_right": accuracy.only_reference,
        "mcnemar_p": accuracy.mcnemar_p,
        "max_difference": comparison.difference,
        "mean_difference": comparison.mean_difference,
        "flips": len(comparison.flips),
        "clear": comparison.clear,
        "clear_flips": comparison.clear_flips,
        "log_odds_difference": comparison.log_odds,
        "calibration": [
            {k: _or_none(v) for k, v in asdict(one).items()}
            for one in metrics.calibration_bins(values, truth)
        ],
    }


def class_figures(answers: Mapping[str, Probabilities], truth: Labels) -> dict[str, Any]:
    """Return precision and recall per class of every row, and the first row's confusion matrix.

    `answers` are the rows' probabilities, `float32 [N,K]`; `truth` are class indices, `int64 [N]`.
    The cells of it that are not 0, as lists of true class, predicted class and count: the matrix of
    another row differs from it by the row's disagreements.
    """
    rows = {}
    cells: list[list[int]] = []
    for row, values in answers.items():
        matrix = metrics.confusion(truth, values.argmax(axis=1), values.shape[1])
        precision, recall = metrics.precision_recall(matrix)
        rows[row] = {
            "precision": [_or_none(float(value)) for value in precision],
            "recall": [_or_none(float(value)) for value in recall],
        }
        if not cells:
            cells = [[int(t), int(p), int(matrix[t, p])] for t, p in np.argwhere(matrix)]
    return {"rows": rows, "confusion": cells}


def _disagreements(row: str, comparison: Comparison, images: ImageSet) -> Iterator[Disagreement]:
    labels = images.dataset.labels
    for flip in sorted(comparison.flips, key=lambda flip: -flip.difference):
        yield Disagreement(
            row=row,
            file=images.items[flip.index].file,
            label=labels[flip.truth],
            reference_answer=labels[flip.reference],
            reference_confidence=flip.reference_probability,
            answer=labels[flip.candidate],
            confidence=flip.candidate_probability,
            right={flip.candidate: "row", flip.reference: "reference"}.get(flip.truth, "neither"),
            pictures=images.name,
            index=flip.index,
        )


def write_disagreements(path: Path, disagreements: Sequence[Disagreement]) -> None:
    """Write `bench-flips.csv`: a header, and a line per row and image."""
    columns = [field.name for field in fields(Disagreement) if field.name != "index"]
    cells = ((getattr(one, column) for column in columns) for one in disagreements)
    write_csv(
        path,
        columns,
        ([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in cells),
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
