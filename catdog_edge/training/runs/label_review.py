"""Labels to review: disagreements of the network and near-duplicates, as `review.csv`.

Of the training and validation images alone; the test split is for `eval` and `bench`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from catdog_edge.spec import ResizeStep
from catdog_edge.training.array_types import Float32
from catdog_edge.training.data.dataset import Dataset, Item, Split, write_csv
from catdog_edge.training.data.near_duplicates import near_duplicates, thumbnails_of
from catdog_edge.training.data.open_dataset import pixels


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

    Args:
        dataset: The images and their labels.
        probabilities: Calibrated, `float32 [n,K]`, for `train` and `val`, in the order of
            `dataset.items_of(split)`.
        steps: The resize rule of the model.

    Raises:
        ValueError: Their number differs from that of the images, or the test split is among them.
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
            raise ValueError(f"{split}: {answers.shape} probabilities for {len(found)} images")
        best = answers.argmax(axis=1)
        suspects += [
            suspect(found[index], "label", best[index], answers[index, best[index]])
            for index in np.flatnonzero(best != labels)
        ]
        items += found
        thumbnails.append(thumbnails_of(frames))
    suspects.sort(key=lambda one: (-one.confidence, one.file))
    classes = np.array([item.label for item in items], np.int64)
    for earlier, later, similarity in near_duplicates(np.concatenate(thumbnails), classes):
        one, two = items[later], items[earlier]
        why = "duplicate" if one.label == two.label else "contradiction"
        suspects.append(suspect(one, why, two.label, similarity, two.file))
    return suspects


def write_review_csv(path: str | os.PathLike[str], suspects: Sequence[Suspect]) -> None:
    """Write `file,split,label,why,answer,confidence,other`, in the order given."""
    write_csv(path, [field.name for field in fields(Suspect)], map(astuple, suspects))
