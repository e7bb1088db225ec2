"""Evaluation of predictions, and predictions of a checkpoint or an exported file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError, ModelError, list_names
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.inference import known, logits, probabilities
from catdog_edge.training.evaluation.metrics import (
    confusion,
    expected_calibration_error,
    log_loss,
    precision_recall,
    wilson,
)
from catdog_edge.training.models.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a set of predictions.

    Attributes:
        pictures: Number of images.
        correct: Number of correct top-1 predictions; rejection aside.
        accuracy: 0..1.
        accuracy_low: Lower end of its 95 % Wilson interval.
        accuracy_high: Upper end.
        log_loss: Mean negative log-likelihood, in nats.
        expected_calibration_error: 0..1, 15 bins of equal width.
        labels: Class names.
        precision: Per class, `nan` where the class was never predicted.
        recall: Per class.
        confusion: A row per true class, a column per prediction.
    """

    pictures: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float
    expected_calibration_error: float
    labels: tuple[str, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `nan` becomes null."""
        document = asdict(self)
        for name in ("precision", "recall"):
            document[name] = [None if math.isnan(value) else value for value in document[name]]
        return document

    def __str__(self) -> str:
        lines = [
            f"accuracy    {self.accuracy:.2%}  ({self.correct:,} of {self.pictures:,}; "
            f"95 % interval {self.accuracy_low:.2%} to {self.accuracy_high:.2%})",
            f"log loss    {self.log_loss:.4f}",
            f"calibration {self.expected_calibration_error:.2%}  (expected error of confidence)",
            "",
        ]
        width = max(10, *(len(label) for label in self.labels))
        heads = " ".join(f"{label:>{width}}" for label in self.labels)
        lines.append(f"{'':{width}} {'precision':>9} {'recall':>8}   answered as: {heads}")
        for index, label in enumerate(self.labels):
            counts = " ".join(f"{count:>{width},}" for count in self.confusion[index])
            lines.append(
                f"{label:{width}} {_percent(self.precision[index]):>9} "
                f"{_percent(self.recall[index]):>8}                {counts}"
            )
        return "\n".join(lines)


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
        log_loss=log_loss(predicted, truth),
        expected_calibration_error=expected_calibration_error(predicted, truth),
        labels=labels,
        precision=tuple(float(value) for value in precision),
        recall=tuple(float(value) for value in recall),
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
    )


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
            f"{weights} has the classes {list_names(spec.labels)}, but {source} has "
            f"{list_names(labels)}; name data with the model's classes with --data"
        )


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"
