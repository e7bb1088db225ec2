"""Do the exported files answer as PyTorch does, and as rightly?

Knows answers (arrays of probabilities) and labels, nothing of clocks or engines. Every row
is asked picture by picture (batch 1), through the preprocessing of the runtime: some
quantized layers answer slightly differently in company.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.rows import REFERENCE
from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image
from catdog_edge.system.files import write_text
from catdog_edge.training.evaluation.evaluation import Evaluation, evaluate
from catdog_edge.training.evaluation.metrics import (
    calibration_bins,
    mcnemar_exact,
    paired_difference,
    wilson,
)

Probabilities = npt.NDArray[np.float32]
Ask = Callable[[Sequence[Image]], Probabilities]

CHUNK = 64
"""Frames in memory at once."""

FIGURES = (
    "accuracy", "accuracy_low", "accuracy_high", "agreement", "agreement_low", "agreement_high",
    "difference", "difference_low", "difference_high", "mcnemar_p", "max_difference",
    "mean_difference", "expected_calibration_error", "precision", "recall", "confusion", "flips",
)  # fmt: skip
"""What is kept of a comparison on spoiled pictures; the keys are those of `Parity.to_dict`."""

AS_THEY_ARE = "test"
ORIGINALS = "originals"
"""What a `Flip` calls the pictures of the test split, and those at their original size."""

T = TypeVar("T")


@dataclass(frozen=True)
class Parity:
    """One row against the reference, on the same pictures.

    Attributes:
        evaluation: Accuracy with Wilson's interval, per class, calibration.
        agreement: Share of pictures on which both give the same class, 0..1.
        agreement_low: Lower end of its 95 % Wilson interval.
        agreement_high: Upper end.
        difference: Accuracy of the row minus accuracy of the reference, -1..1.
        difference_low: Lower end of its 95 % paired interval (Tango).
        difference_high: Upper end.
        only_row_right: Pictures that only the row gets right.
        only_reference_right: Pictures that only the reference gets right.
        mcnemar_p: Two-sided p-value of McNemar's exact test.
        max_difference: Largest difference of a probability.
        mean_difference: Mean difference of the probabilities.
        flips: Indices of the pictures on which the two give different classes.
        calibration: Bins of the reliability diagram: count, confidence, accuracy.
    """

    evaluation: Evaluation
    agreement: float
    agreement_low: float
    agreement_high: float
    difference: float
    difference_low: float
    difference_high: float
    only_row_right: int
    only_reference_right: int
    mcnemar_p: float
    max_difference: float
    mean_difference: float
    flips: tuple[int, ...]
    calibration: tuple[dict[str, float | int | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the evaluation's figures beside the others; `nan` becomes null."""
        document = asdict(self)
        del document["evaluation"]
        return {**self.evaluation.to_dict(), **document, "flips": len(self.flips)}


def compare(
    probabilities: Probabilities,
    reference: Probabilities,
    truth: npt.NDArray[np.int64],
    labels: tuple[str, ...],
) -> Parity:
    """Compare two sets of answers to the same pictures.

    Args:
        probabilities: `float32 [N,K]`, of the row.
        reference: `float32 [N,K]`, of the reference.
        truth: `int64 [N]`, indices of `labels`.
        labels: Class names.

    Raises:
        ValueError: The shapes do not fit, or there are no pictures.
    """
    if probabilities.shape != reference.shape or len(truth) != len(reference):
        raise ValueError(
            f"answers {probabilities.shape}, reference {reference.shape} and {len(truth)} labels "
            "do not belong to the same pictures"
        )
    answer, expected = probabilities.argmax(axis=1), reference.argmax(axis=1)
    same = int((answer == expected).sum())
    right, reference_right = answer == truth, expected == truth
    difference, low, high = paired_difference(right, reference_right)
    only_row = int((right & ~reference_right).sum())
    only_reference = int((~right & reference_right).sum())
    distance = np.abs(probabilities.astype(np.float64) - reference)
    agreement_low, agreement_high = wilson(same, len(truth))
    return Parity(
        evaluation=evaluate(probabilities, truth, labels),
        agreement=same / len(truth),
        agreement_low=agreement_low,
        agreement_high=agreement_high,
        difference=difference,
        difference_low=low,
        difference_high=high,
        only_row_right=only_row,
        only_reference_right=only_reference,
        mcnemar_p=mcnemar_exact(only_row, only_reference),
        max_difference=float(distance.max()),
        mean_difference=float(distance.mean()),
        flips=tuple(int(index) for index in np.flatnonzero(answer != expected)),
        calibration=tuple(
            {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in asdict(group).items()
            }
            for group in calibration_bins(probabilities, truth)
        ),
    )


def ask_all(
    askers: Mapping[str, Ask],
    frames: Iterable[Image],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Probabilities]:
    """Ask every row about every frame, one frame at a time.

    Frames are taken in chunks and each row answers a whole chunk in turn, so that memory is
    bounded and a picture is decoded once for all rows.

    Args:
        askers: By row: one frame in a list to `float32 [1,K]`.
        frames: `uint8 [H,W,3]` BGR, of any size.
        progress: Called with the number of frames done.

    Returns:
        By row: `float32 [N,K]`.

    Raises:
        ModelError: A row answers with infinities or nan.
        ValueError: There are no frames.
    """
    parts: dict[str, list[Probabilities]] = {name: [] for name in askers}
    done = 0
    for chunk in _chunks(frames, CHUNK):
        for name, ask in askers.items():
            found = [ask([frame]) for frame in chunk]
            if not np.isfinite(found).all():
                raise ModelError(
                    f"{name} answers with what is no number: its weights are damaged, or the "
                    "training went astray; train again with a lower --lr, or name other weights"
                )
            parts[name].extend(found)
        done += len(chunk)
        if progress is not None:
            progress(done)
    if not done:
        raise ValueError("there are no frames to ask about")
    return {name: np.concatenate(answers) for name, answers in parts.items()}


def brief(
    answers: Mapping[str, Probabilities],
    truth: npt.NDArray[np.int64],
    labels: tuple[str, ...],
) -> dict[str, dict[str, Any]]:
    """Compare every row with PyTorch's, and keep the figures named in `FIGURES`.

    Args:
        answers: By row: `float32 [N,K]`; `pytorch` is one of them.
        truth: `int64 [N]`, indices of `labels`.
        labels: Class names.
    """
    result = {}
    for row, values in answers.items():
        document = compare(values, answers[REFERENCE], truth, labels).to_dict()
        result[row] = {name: document[name] for name in FIGURES}
    return result


@dataclass(frozen=True)
class Flip:
    """A picture on which a row and the reference give different classes.

    Attributes:
        row: The row.
        index: Of the picture in the list that was asked.
        file: Its name inside the data.
        label: The true class.
        reference_answer: What the reference says.
        reference_confidence: 0..1.
        answer: What the row says.
        confidence: 0..1.
        right: `row`, `reference`, or `neither` (possible with three classes and more).
        pictures: Which pictures: `AS_THEY_ARE`, `ORIGINALS`, or the name of a corruption.
    """

    row: str
    index: int
    file: str
    label: str
    reference_answer: str
    reference_confidence: float
    answer: str
    confidence: float
    right: str
    pictures: str


def flips_of(
    row: str,
    probabilities: Probabilities,
    reference: Probabilities,
    truth: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    files: Sequence[str],
    pictures: str = AS_THEY_ARE,
) -> list[Flip]:
    """The pictures on which a row and the reference differ; the most different first."""
    answer, expected = probabilities.argmax(axis=1), reference.argmax(axis=1)
    indices = np.flatnonzero(answer != expected)
    distance = np.abs(probabilities - reference).max(axis=1)
    result = []
    for index in indices[np.argsort(-distance[indices], kind="stable")]:
        a, b, true = int(answer[index]), int(expected[index]), int(truth[index])
        result.append(
            Flip(
                row=row,
                index=int(index),
                file=files[index],
                label=labels[true],
                reference_answer=labels[b],
                reference_confidence=float(reference[index, b]),
                answer=labels[a],
                confidence=float(probabilities[index, a]),
                right="row" if a == true else "reference" if b == true else "neither",
                pictures=pictures,
            )
        )
    return result


FLIP_COLUMNS = (
    "row", "file", "label", "reference_answer", "reference_confidence",
    "answer", "confidence", "right", "pictures",
)  # fmt: skip


def all_flips(
    answers: Mapping[str, Probabilities],
    truth: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    files: Sequence[str],
    pictures: str = AS_THEY_ARE,
) -> list[Flip]:
    """Every disagreement of every row with PyTorch; the arguments are those of `flips_of`."""
    return [
        flip
        for row, values in answers.items()
        if row != REFERENCE
        for flip in flips_of(row, values, answers[REFERENCE], truth, labels, files, pictures)
    ]


def write_flips(path: Path, flips: Sequence[Flip]) -> None:
    """Write `bench-flips.csv`, a line per row and picture; only the header where none differ.

    Raises:
        CatdogError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FLIP_COLUMNS)
    for flip in flips:
        values = asdict(flip)
        writer.writerow(
            f"{values[name]:.6f}" if isinstance(values[name], float) else values[name]
            for name in FLIP_COLUMNS
        )
    write_text(path, text.getvalue())


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
