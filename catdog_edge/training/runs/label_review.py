"""Labels to review: disagreements of the network and near-duplicates, as `review.csv`.

Of the training and validation images alone; the test split is for `eval` and `bench`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import cv2
import numpy as np

from catdog_edge.spec import ResizeStep
from catdog_edge.system.console import counted
from catdog_edge.training.array_types import Float32, Labels, Pixels
from catdog_edge.training.data.dataset import Dataset, Item, Split, write_csv
from catdog_edge.training.data.open_dataset import pixels

SIMILAR = 0.985
"""Correlation of two 16x16 grey thumbnails from which on images are near-duplicates.

The same photograph saved, toned or lightly cropped again is well above it; different photographs,
also of one animal, are well below."""

BLOCK = 256  # images that are compared with all earlier ones at a time, for bounded memory
MAX_COMPARED = 50_000  # images that are compared, each with every other: more would take minutes


@dataclass(frozen=True)
class Suspect:
    """An image to review.

    `why` is `label` (the network predicts another one), `duplicate` (nearly the same as an earlier
    image) or `contradiction` (nearly the same, with another label).
    """

    file: str
    split: Split
    label: str
    why: str
    answer: str  # the predicted label, or that of the other image
    confidence: float  # of the prediction, 0..1, or the correlation
    other: str = ""  # the other image, for duplicates


def review(
    dataset: Dataset, probabilities: Mapping[Split, Float32], steps: Sequence[ResizeStep]
) -> list[Suspect]:
    """List disagreements, the most confident first, then near-duplicates.

    The probabilities, for `train` and `val`, are `float32 [n,K]`, calibrated, in the order of
    `dataset.items_of(split)`.

    Raises:
        ValueError: A split has another number of images than of probabilities, or is `test`.
    """
    if "test" in probabilities:
        raise ValueError("the test split is not for review")
    names = dataset.labels

    def suspect(item: Item, why: str, answer: int, confidence: float, other: str = "") -> Suspect:
        label, rounded = names[item.label], round(float(confidence), 4)
        return Suspect(item.file, item.split, label, why, names[answer], rounded, other)

    suspects = []
    items: list[Item] = []
    thumbnails = []
    for split, answers in probabilities.items():
        frames, labels, found = pixels(dataset, split, steps)
        if answers.shape != (len(found), len(names)):
            raise ValueError(f"{split}: {answers.shape} probabilities for {len(found)} pictures")
        best = answers.argmax(axis=1)
        suspects += [
            suspect(found[index], "label", best[index], answers[index, best[index]])
            for index in np.flatnonzero(best != labels)
        ]
        items += found
        thumbnails.append(_thumbnails(frames))
    suspects.sort(key=lambda one: (-one.confidence, one.file))
    classes = np.array([item.label for item in items], np.int64)
    pairs = near_duplicates(np.concatenate(thumbnails), labels=classes) if thumbnails else []
    for earlier, later, similarity in pairs:
        one, two = items[later], items[earlier]
        why = "duplicate" if one.label == two.label else "contradiction"
        suspects.append(suspect(one, why, two.label, similarity, two.file))
    return suspects


def near_duplicates(
    thumbnails: Pixels, labels: Labels | None = None
) -> list[tuple[int, int, float]]:
    """Find images that are nearly the same as an earlier one, mirrored or not.

    Each image, `uint8 [n,16,16]`, grey, is listed once, however many are like it; of more than
    `MAX_COMPARED` the first ones count. With labels, `int64 [n]`, the earlier one is the first
    with another label, where there is one.

    Returns:
        Index of the earlier one, index of the image, correlation; the most similar first.
    """
    thumbnails = thumbnails[:MAX_COMPARED]
    plain, mirrored = _standardised(thumbnails), _standardised(thumbnails[:, :, ::-1])
    pairs = []
    for start in counted(range(0, len(plain), BLOCK), "blocks of images compared"):
        rows = np.arange(start, min(start + BLOCK, len(plain)))
        end = rows[-1] + 1
        correlation = np.maximum(plain[rows] @ plain[:end].T, plain[rows] @ mirrored[:end].T)
        alike = (correlation >= SIMILAR) & (np.arange(end) < rows[:, None])
        if labels is not None:
            other = alike & (labels[:end] != labels[rows, None])
            alike = np.where(other.any(axis=1, keepdims=True), other, alike)
        for row in np.flatnonzero(alike.any(axis=1)):
            first = int(alike[row].argmax())
            pairs.append((first, int(rows[row]), min(1.0, float(correlation[row, first]))))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def write_review_csv(path: str | os.PathLike[str], suspects: Sequence[Suspect]) -> None:
    """Write `file,split,label,why,answer,confidence,other`, in the order given."""
    write_csv(path, [field.name for field in fields(Suspect)], map(astuple, suspects))


def _thumbnails(frames: Pixels) -> Pixels:
    small = np.zeros((len(frames), 16, 16), np.uint8)
    for index, frame in enumerate(frames):
        grey = cv2.cvtColor(np.asarray(frame), cv2.COLOR_BGR2GRAY)
        small[index] = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return small


def _standardised(thumbnails: Pixels) -> Float32:
    """Scale rows to mean 0 and length 1: the product of two is their correlation."""
    flat = thumbnails.reshape(len(thumbnails), 256).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # The correlation of an image of one grey level is not defined.
    return np.where(length < 16, 0, flat / np.maximum(length, 1)).astype(np.float32)
