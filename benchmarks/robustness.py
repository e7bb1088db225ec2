"""Where an exported file breaks first: spoiled pictures, and pictures of other sizes.

Knows data sets and who is asked about them; the comparison itself is in `parity`, what
spoils a picture in `corruptions`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import parity
from benchmarks.corruptions import CORRUPTIONS, corrupt
from catdog_edge.preprocess import Frame
from catdog_edge.training.data import Dataset, Item


def corruptions(
    dataset: Dataset,
    items: Sequence[Item],
    askers: Mapping[str, parity.Ask],
    answers: Mapping[str, parity.Probabilities],
    pictures: int,
) -> dict[str, Any]:
    """Ask about spoiled test pictures.

    Args:
        dataset: Where they are from.
        items: The test split.
        askers: By row; `pytorch` is one of them.
        answers: By row: what was answered to `items` as they are.
        pictures: How many of them are spoiled, at most.

    Returns:
        `pictures`, `set` (name and strength of each corruption) and `results`: by
        corruption, and `clean`, by row, the figures named in `parity.FIGURES`.
    """
    chosen = spread(items, pictures)
    place = {item.file: index for index, item in enumerate(items)}
    indices = [place[item.file] for item in chosen]
    truth = np.array([item.label for item in chosen], dtype=np.int64)
    clean = {row: values[indices] for row, values in answers.items()}
    results = {"clean": parity.brief(clean, truth, dataset.labels)}
    for corruption in CORRUPTIONS:
        frames = (corrupt(corruption, dataset.decode(item), item.digest) for item in chosen)
        results[corruption.name] = parity.brief(
            parity.ask_all(askers, frames), truth, dataset.labels
        )
    return {
        "pictures": len(chosen),
        "set": [{"name": one.name, "says": one.says} for one in CORRUPTIONS],
        "results": results,
    }


def originals(dataset: Dataset, askers: Mapping[str, parity.Ask]) -> dict[str, Any]:
    """Ask about every picture of another source, whatever split it would be in.

    Args:
        dataset: Labelled pictures with the model's classes, usually at their original size.
        askers: By row; `pytorch` is one of them.
    """
    truth = np.array([item.label for item in dataset.items], dtype=np.int64)
    sizes: list[tuple[int, ...]] = []

    def frames() -> Iterator[Frame]:
        for item in dataset.items:
            frame = dataset.decode(item)
            sizes.append(frame.shape[:2])
            yield frame

    answers = parity.ask_all(askers, frames())
    height, width = np.median(np.array(sizes), axis=0)
    return {
        "name": Path(dataset.source).name,
        "pictures": len(truth),
        "median_height": int(height),
        "median_width": int(width),
        "rows": parity.brief(answers, truth, dataset.labels),
    }


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` pictures, all classes alike, the same ones in every run."""
    ranked = sorted(items, key=lambda item: item.digest)
    labels = sorted({item.label for item in ranked})
    by_label = [[item for item in ranked if item.label == label] for label in labels]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*by_label))
    return [item for item in mixed if item is not None][:count]
