"""The metrics of a set of predictions, as text and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog_edge.errors import escaped
from catdog_edge.system.console import align
from catdog_edge.training.array_types import Float32, Float64, Labels
from catdog_edge.training.evaluation import metrics

TABLE_CLASSES = 8  # classes up to which a text shows the whole confusion matrix
MATRIX_CLASSES = 100  # classes up to which JSON holds the whole confusion matrix
WORST = 10  # length of lists of the worst
LONGEST = 24  # characters of the name of a class


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a set of predictions."""

    pictures: int  # number of images
    correct: int  # number of correct top-1 predictions; rejection aside
    accuracy: float  # 0..1
    accuracy_low: float  # lower end of its 95 % Wilson interval
    accuracy_high: float  # upper end
    balanced_accuracy: float  # mean recall of the classes that occur, 0..1
    log_loss: float  # mean negative log-likelihood, in nats
    expected_calibration_error: float  # 0..1, 15 bins of equal width
    labels: tuple[str, ...]  # class names
    precision: Float64  # `float64 [K]`, `nan` where the class was never predicted
    recall: Float64  # `float64 [K]`, `nan` where the class does not occur
    confusion: Labels  # `int64 [K,K]`, a row per true class, a column per prediction

    def most_confused(self) -> list[tuple[int, int, int]]:
        """Return the most frequent confusions: true class, predicted class and count."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
        cells = zip(*np.unravel_index(order, wrong.shape))
        return [(int(row), int(column), int(wrong[row, column])) for row, column in cells]

    def to_dict(self) -> dict[str, Any]:
        """Convert to types of JSON; `nan` and the confusion matrix of many classes become null."""
        document = {**vars(self), "labels": list(self.labels)}
        for name in ("precision", "recall"):
            document[name] = [None if math.isnan(one) else one for one in document[name].tolist()]
        few = len(self.labels) <= MATRIX_CLASSES
        document["confusion"] = self.confusion.tolist() if few else None
        document["most_confused"] = [
            {"truth": self.labels[row], "answer": self.labels[column], "count": count}
            for row, column, count in self.most_confused()
            if count
        ]
        return document

    def __str__(self) -> str:
        lines = [
            f"accuracy    {self.accuracy:.2%}  ({self.correct:,} of {self.pictures:,}; "
            f"95 % interval {self.accuracy_low:.2%} to {self.accuracy_high:.2%})",
            f"balanced    {self.balanced_accuracy:.2%}  (mean of the classes' recall)",
            f"log loss    {self.log_loss:.4f}",
            f"calibration {self.expected_calibration_error:.2%}  (expected error of confidence)",
            "",
        ]
        few = len(self.labels) <= TABLE_CLASSES
        return "\n".join(lines + (self._table() if few else self._worst()))

    def _table(self) -> list[str]:
        """Format all classes, with the confusion matrix."""
        names = [shorten_label(label) for label in self.labels]
        rows = [["", "precision", "recall", "answered as:", *names]]
        for name, *shares, row in zip(names, self.precision, self.recall, self.confusion):
            rows.append([name, *map(_percent, shares), "", *(f"{count:,}" for count in row)])
        return align(rows)

    def _worst(self) -> list[str]:
        """List the classes with the lowest recall, and the most frequent confusions."""
        names = [shorten_label(label) for label in self.labels]
        worst = np.argsort(self.recall, kind="stable")[:WORST]  # nan comes last
        rows = [["", "images", "precision", "recall"]]
        for index in worst:
            shares = map(_percent, (self.precision[index], self.recall[index]))
            rows.append([names[index], f"{self.confusion[index].sum():,}", *shares])
        lines = [f"the {len(worst)} of {len(names):,} classes with the lowest recall", ""]
        lines += [*align(rows), "", "the most frequent confusions", ""]
        lines += [
            f"{count:>9,}  {names[row]}, answered as {names[column]}"
            for row, column, count in self.most_confused()
            if count
        ]
        return lines


def evaluate(predicted: Float32, truth: Labels, labels: tuple[str, ...]) -> Evaluation:
    """Evaluate probabilities `float32 [N,K]` of true classes `int64 [N]`, indices of `labels`.

    Examples:
        >>> print(evaluate(model.probabilities(images), truth, model.spec.labels))
    """
    answers = predicted.argmax(axis=1)
    matrix = metrics.confusion(truth, answers, len(labels))
    precision, recall = metrics.precision_recall(matrix)
    correct = int((answers == truth).sum())
    low, high = metrics.wilson(correct, len(truth))
    return Evaluation(
        pictures=len(truth),
        correct=correct,
        accuracy=correct / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=float(np.nanmean(recall)),
        log_loss=metrics.log_loss(predicted, truth),
        expected_calibration_error=metrics.expected_calibration_error(predicted, truth),
        labels=labels,
        precision=precision,
        recall=recall,
        confusion=matrix,
    )


def shorten_label(label: str) -> str:
    """Shorten the name of a class in its middle, and escape control characters."""
    text, half = escaped(label), LONGEST // 2
    return text if len(text) <= LONGEST else text[:half] + "…" + text[half + 1 - LONGEST :]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"
