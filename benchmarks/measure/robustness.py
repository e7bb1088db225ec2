"""Where an exported file breaks first: spoiled pictures, and pictures of other sizes.

Knows data sets and who is asked about them; the comparison itself is in `parity`, what
spoils a picture in `corruptions`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import parity
from benchmarks.measure.corruptions import CORRUPTIONS, corrupt
from catdog_edge.images.preprocess import Image
from catdog_edge.training.data.dataset import Dataset, Item


@dataclass(frozen=True)
class Asked:
    """What came of asking about other pictures than the test split as it is.

    Attributes:
        document: For `bench.json`.
        flips: Every disagreement with PyTorch; `index` counts in the list that was given.
    """

    document: dict[str, Any]
    flips: list[parity.Flip]


def corruptions(
    dataset: Dataset,
    items: Sequence[Item],
    askers: Mapping[str, parity.Ask],
    answers: Mapping[str, parity.Probabilities],
    pictures: int,
) -> Asked:
    """Ask about spoiled test pictures.

    Args:
        dataset: Where they are from.
        items: The test split.
        askers: By row; `pytorch` is one of them.
        answers: By row: what was answered to `items` as they are.
        pictures: How many of them are spoiled, at most.

    Returns:
        In the document: `pictures`, `set` (name and strength of each corruption) and `results`:
        by corruption, and `clean`, by row, the figures named in `parity.FIGURES`.
    """
    chosen = spread(items, pictures)
    place = {item.file: index for index, item in enumerate(items)}
    indices = [place[item.file] for item in chosen]
    truth = np.array([item.label for item in chosen], dtype=np.int64)
    clean = {row: values[indices] for row, values in answers.items()}
    results = {"clean": parity.brief(clean, truth, dataset.labels)}
    flips: list[parity.Flip] = []
    files = [item.file for item in chosen]
    for corruption in CORRUPTIONS:
        frames = (corrupt(corruption, dataset.decode(item), item.digest) for item in chosen)
        found = parity.ask_all(askers, frames)
        results[corruption.name] = parity.brief(found, truth, dataset.labels)
        flips += [
            dataclasses.replace(flip, index=indices[flip.index])
            for flip in parity.all_flips(found, truth, dataset.labels, files, corruption.name)
        ]
    document = {
        "pictures": len(chosen),
        "set": [{"name": one.name, "says": one.says} for one in CORRUPTIONS],
        "results": results,
    }
    return Asked(document, flips)


def originals(dataset: Dataset, askers: Mapping[str, parity.Ask]) -> Asked:
    """Ask about every picture of another source, whatever split it would be in.

    Args:
        dataset: Labelled pictures with the model's classes, usually at their original size.
        askers: By row; `pytorch` is one of them.
    """
    truth = np.array([item.label for item in dataset.items], dtype=np.int64)
    sizes: list[tuple[int, ...]] = []

    def frames() -> Iterator[Image]:
        for item in dataset.items:
            frame = dataset.decode(item)
            sizes.append(frame.shape[:2])
            yield frame

    answers = parity.ask_all(askers, frames())
    height, width = np.median(np.array(sizes), axis=0)
    document = {
        "name": Path(dataset.source).name,
        "pictures": len(truth),
        "median_height": int(height),
        "median_width": int(width),
        "rows": parity.brief(answers, truth, dataset.labels),
    }
    files = [item.file for item in dataset.items]
    return Asked(
        document, parity.all_flips(answers, truth, dataset.labels, files, parity.ORIGINALS)
    )


def seen(flip: parity.Flip, dataset: Dataset, items: Sequence[Item]) -> Image:
    """The picture on which a row and PyTorch differ, as they saw it.

    Args:
        flip: Of the test split as it is, or spoiled.
        dataset: Where the test split is from.
        items: The test split.
    """
    item = items[flip.index]
    frame = dataset.decode(item)
    for corruption in CORRUPTIONS:
        if corruption.name == flip.pictures:
            return corrupt(corruption, frame, item.digest)
    return frame


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` pictures, all classes alike, the same ones in every run."""
    ranked = sorted(items, key=lambda item: item.digest)
    labels = sorted({item.label for item in ranked})
    by_label = [[item for item in ranked if item.label == label] for label in labels]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*by_label))
    return [item for item in mixed if item is not None][:count]
