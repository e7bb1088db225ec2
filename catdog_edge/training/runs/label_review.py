"""Labels to review: disagreements of the network and near-duplicates, as `review.csv`.

Of the training and validation images alone; the test split is for `eval` and `bench`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.spec import ResizeStep
from catdog_edge.training.data.dataset import Dataset, Item, Split, write_csv
from catdog_edge.training.data.open_dataset import pixels

SIMILAR = 0.985
"""Correlation of two 16x16 grey thumbnails from which on images are near-duplicates.

The same photograph saved, toned or lightly cropped again is well above it; different photographs,
also of one animal, are well below."""

MAX_COMPARED = 50_000
"""Images that are compared, each with every other: more would take minutes."""


@dataclass(frozen=True)
class Suspect:
    """An image to review.

    Attributes:
        file: Its name in the data.
        split: `train` or `val`.
        label: Its label in the data.
        why: `label`: the network predicts another one. `duplicate`: nearly the same as an
            earlier image. `contradiction`: nearly the same, with another label.
        answer: The predicted label, or that of the other image.
        confidence: Of the prediction, 0..1, or the correlation.
        other: The other image, for duplicates.
    """

    file: str
    split: Split
    label: str
    why: str
    answer: str
    confidence: float
    other: str = ""


def review(
    dataset: Dataset,
    probabilities: Mapping[Split, npt.NDArray[np.float32]],
    steps: Sequence[ResizeStep],
) -> list[Suspect]:
    """List disagreements, the most confident first, then near-duplicates.

    Args:
        dataset: What was trained on.
        probabilities: For `train` and `val`, `float32 [n,K]`, calibrated, in the order of
            `dataset.items_of(split)`.
        steps: The resize rule of the model.

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
    thumbnails: npt.NDArray[np.uint8],
    similar: float = SIMILAR,
    labels: npt.NDArray[np.int64] | None = None,
) -> list[tuple[int, int, float]]:
    """Find images that are nearly the same as an earlier one, mirrored or not.

    Each image is listed once, however many are like it.

    Args:
        thumbnails: `uint8 [n,16,16]`, grey; of more than `MAX_COMPARED` the first ones count.
        similar: Correlation from which on two are nearly the same.
        labels: `int64 [n]`. With them, the earlier one is the first with another label, where
            there is one.

    Returns:
        Index of the earlier one, index of the image, correlation; the most similar first.
    """
    thumbnails = thumbnails[:MAX_COMPARED]
    plain = _standardised(thumbnails)
    mirrored = _standardised(thumbnails[:, :, ::-1])
    count = len(plain)
    first = np.full(count, -1, np.int64)
    value = np.zeros(count, np.float32)
    settled = np.zeros(count, bool)  # no later match replaces it
    block = 1024
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        for earlier in range(0, start + 1, block):
            columns = np.arange(earlier, min(earlier + block, count))
            correlation = plain[rows] @ plain[columns].T
            np.maximum(correlation, plain[rows] @ mirrored[columns].T, out=correlation)
            alike = correlation >= similar
            if not alike.any():
                continue
            alike &= columns < rows[:, None]
            better = [alike & (first[rows] < 0)[:, None]]
            if labels is not None:
                other = alike & (labels[columns] != labels[rows][:, None])
                better.append(other & ~settled[rows][:, None])
            for number, candidates in enumerate(better):
                found = np.flatnonzero(candidates.any(axis=1))
                column = candidates[found].argmax(axis=1)
                first[rows[found]] = columns[column]
                value[rows[found]] = correlation[found, column]
                settled[rows[found]] |= number == 1
    pairs = [
        (int(first[index]), int(index), min(1.0, float(value[index])))
        for index in np.flatnonzero(first >= 0)
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def write_review_csv(path: str | os.PathLike[str], suspects: Sequence[Suspect]) -> None:
    """Write `file,split,label,why,answer,confidence,other`, in the order given."""
    write_csv(path, [field.name for field in fields(Suspect)], map(astuple, suspects))


def _thumbnails(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    small = np.zeros((len(frames), 16, 16), np.uint8)
    for index, frame in enumerate(frames):
        grey = cv2.cvtColor(np.asarray(frame), cv2.COLOR_BGR2GRAY)
        small[index] = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return small


def _standardised(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scale rows to mean 0 and length 1: the product of two is their correlation."""
    flat = thumbnails.reshape(len(thumbnails), 256).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # The correlation of an image of one grey level is not defined.
    return np.where(length < 16, 0, flat / np.maximum(length, 1)).astype(np.float32)
