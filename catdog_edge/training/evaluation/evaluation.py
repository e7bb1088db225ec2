"""Evaluation of predictions, and predictions of a checkpoint or an exported file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError, ModelError, label_difference
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.spec import ModelSpec
from catdog_edge.system.console import plain
from catdog_edge.training.evaluation.inference import known, logits, probabilities
from catdog_edge.training.evaluation.metrics import (
    confusion,
    expected_calibration_error,
    log_loss,
    precision_recall,
    wilson,
)
from catdog_edge.training.models.checkpoint import load_checkpoint

TABLE_CLASSES = 8
"""Classes up to which a text shows the whole confusion matrix."""

MATRIX_CLASSES = 100
"""Classes up to which JSON holds the whole confusion matrix."""

WORST = 10
"""Length of lists of the worst."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a set of predictions.

    Attributes:
        pictures: Number of images.
        correct: Number of correct top-1 predictions; rejection aside.
        accuracy: 0..1.
        accuracy_low: Lower end of its 95 % Wilson interval.
        accuracy_high: Upper end.
        balanced_accuracy: Mean recall of the classes that occur, 0..1.
        log_loss: Mean negative log-likelihood, in nats.
        expected_calibration_error: 0..1, 15 bins of equal width.
        labels: Class names.
        precision: `float64 [K]`, `nan` where the class was never predicted.
        recall: `float64 [K]`, `nan` where the class does not occur.
        confusion: `int64 [K,K]`, a row per true class, a column per prediction.
    """

    pictures: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    log_loss: float
    expected_calibration_error: float
    labels: tuple[str, ...]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    confusion: npt.NDArray[np.int64]

    def most_confused(self) -> list[tuple[int, int, int]]:
        """Return the worst confusions: true class, predicted class and count."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
        cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(int(row), int(column), int(wrong[row, column])) for row, column in cells]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `nan` becomes null, and so does the confusion matrix of many classes."""
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
        return "\n".join(lines + (self._table() if self._is_small else self._worst()))

    @property
    def _is_small(self) -> bool:
        return len(self.labels) <= TABLE_CLASSES

    def _table(self) -> list[str]:
        """All classes, with the confusion matrix."""
        names = [shorten_label(label) for label in self.labels]
        width = max(10, *map(len, names))
        heads = " ".join(f"{name:>{width}}" for name in names)
        lines = [f"{'':{width}} {'precision':>9} {'recall':>8}   answered as: {heads}"]
        for name, precision, recall, row in zip(
            names, self.precision, self.recall, self.confusion, strict=True
        ):
            counts = " ".join(f"{count:>{width},}" for count in row)
            lines.append(
                f"{name:{width}} {_percent(precision):>9} {_percent(recall):>8}{'':16}{counts}"
            )
        return lines

    def _worst(self) -> list[str]:
        """The classes with the lowest recall, and the most frequent confusions."""
        names = [shorten_label(label) for label in self.labels]
        worst = np.argsort(self.recall, kind="stable")[:WORST]  # nan comes last
        width = max(10, *(len(names[index]) for index in worst))
        heads = f"{'images':>9} {'precision':>9} {'recall':>8}"
        lines = [f"the {len(worst)} of {len(names):,} classes with the lowest recall", ""]
        lines.append(f"{'':{width}} {heads}")
        for index in worst:
            images = int(self.confusion[index].sum())
            precision, recall = _percent(self.precision[index]), _percent(self.recall[index])
            lines.append(f"{names[index]:{width}} {images:>9,} {precision:>9} {recall:>8}")
        lines += ["", "the most frequent confusions", ""]
        lines += [
            f"{count:>9,}  {names[row]}, answered as {names[column]}"
            for row, column, count in self.most_confused()
            if count
        ]
        return lines


def evaluate(
    predicted: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], labels: tuple[str, ...]
) -> Evaluation:
    """Evaluate predictions.

    Args:
        predicted: Probabilities, `float32 [N,K]`.
        truth: `int64 [N]`, indices of `labels`.
        labels: Class names.
    """
    answers = predicted.argmax(axis=1)
    matrix = confusion(truth, answers, len(labels))
    precision, recall = precision_recall(matrix)
    correct = int((answers == truth).sum())
    low, high = wilson(correct, len(truth))
    return Evaluation(
        pictures=len(truth),
        correct=correct,
        accuracy=correct / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=float(np.nanmean(recall)),
        log_loss=log_loss(predicted, truth),
        expected_calibration_error=expected_calibration_error(predicted, truth),
        labels=labels,
        precision=precision,
        recall=recall,
        confusion=matrix,
    )


def shorten_label(label: str, longest: int = 24) -> str:
    """Shorten the name of a class for a table, and escape control characters."""
    text = plain(label)
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Predictor:
    """A checkpoint (`.pt`) or an exported file, behind one interface.

    Args:
        path: The file.

    Raises:
        ModelError: It is missing, damaged, or of another kind.

    Example:
        >>> model = Predictor(Path("runs/mine/model.onnx"))
        >>> result = evaluate(model.probabilities(images), truth, model.spec.labels)
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelError(f"there is no file {path}; name a .pt or an .onnx with --weights")
        self._classifier: Classifier | None = None
        if path.suffix in (".onnx", ".ort"):
            self._classifier = Classifier(path, provider="cpu")
            self.spec = self._classifier.spec
        else:
            self._network, self.spec = load_checkpoint(path)

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Classify images of the model's size: `float32 [N,K]` for `uint8 [N,H,W,3]` BGR.

        An exported file takes one image at a time, as in a camera loop: dynamically quantized
        layers answer slightly differently in a batch.
        """
        if self._classifier is None:
            return probabilities(self._network, self.spec, pixels)
        return np.concatenate([self._classifier.probabilities([image]) for image in pixels])

    def scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute how certain it is that one of the classes is seen: `float32 [N]`."""
        if self._classifier is not None:
            return np.concatenate([self._classifier.scores([image]) for image in pixels])
        rejection = self.spec.rejection
        if rejection is None or rejection.score == "max_probability":
            return np.asarray(self.probabilities(pixels).max(axis=1))
        return known(logits(self._network, self.spec.normalization, pixels))


def check_labels(spec: ModelSpec, labels: tuple[str, ...], weights: Path, source: str) -> None:
    """Check that data has exactly the classes of the model, in the same order.

    Raises:
        DataError: They differ.
    """
    if spec.labels != labels:
        raise DataError(
            f"{weights} and {source} have different classes "
            f"({label_difference(spec.labels, labels)}); name data with the model's classes with "
            "--data"
        )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"
