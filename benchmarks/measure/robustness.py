"""Answers to other images than the test split: corrupted ones, and those of another source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import parity
from benchmarks.measure.corruptions import CORRUPTIONS
from catdog_edge.images.preprocess import Image
from catdog_edge.system.console import track
from catdog_edge.training.data.dataset import Dataset, Item
from exporters.checks.comparison import Probabilities

Result = tuple[dict[str, Any], list[parity.Disagreement]]
"""What `bench.json` says, and every disagreement with PyTorch."""


def corruption_sets(dataset: Dataset, items: Sequence[Item], images: int) -> list[parity.ImageSet]:
    """Apply every corruption to at most `images` test images, all classes alike."""
    chosen = balanced(items, images)
    return [parity.ImageSet(one.name, dataset, chosen, one) for one in CORRUPTIONS]


def classify_corrupted(
    sets: Sequence[parity.ImageSet],
    predictors: Mapping[str, parity.Predict],
    clean: parity.ImageSet,
    answers: Mapping[str, Probabilities],
) -> Result:
    """Classify the images of `corruption_sets`; `answers` are those to the test split, `clean`."""
    position = {item.file: index for index, item in enumerate(clean.items)}
    chosen = sets[0].items
    indices = [position[item.file] for item in chosen]
    same = parity.ImageSet("clean", clean.dataset, chosen)
    figures, _ = parity.compare_rows(
        {row: values[indices] for row, values in answers.items()}, same
    )
    results = {"clean": _short(figures)}
    disagreements: list[parity.Disagreement] = []
    for one in track(sets, "corruptions"):
        figures, found = parity.compare_rows(parity.classify_all(predictors, one.frames()), one)
        results[one.name] = _short(figures)
        disagreements += found
    document = {
        "pictures": len(chosen),
        "set": [{"name": one.name, "says": one.says} for one in CORRUPTIONS],
        "results": results,
    }
    return document, disagreements


def classify_originals(images: parity.ImageSet, predictors: Mapping[str, parity.Predict]) -> Result:
    """Classify labelled images of another source, usually at their original size."""
    sizes: list[tuple[int, ...]] = []

    def frames() -> Iterator[Image]:
        for frame in images.frames():
            sizes.append(frame.shape[:2])
            yield frame

    figures, disagreements = parity.compare_rows(parity.classify_all(predictors, frames()), images)
    height, width = np.median(np.array(sizes), axis=0)
    document = {
        "name": Path(images.dataset.source).name,
        "pictures": len(images.items),
        "median_height": int(height),
        "median_width": int(width),
        "rows": _short(figures),
    }
    return document, disagreements


def balanced(items: Sequence[Item], count: int) -> list[Item]:
    """Choose at most `count` images, all classes alike, the same ones in every run."""
    ranked = sorted(items, key=lambda item: item.digest)
    labels = sorted({item.label for item in ranked})
    by_label = [[item for item in ranked if item.label == label] for label in labels]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(*by_label))
    return [item for item in mixed if item is not None][:count]


def _short(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row: {name: found[name] for name in parity.SHORT} for row, found in figures.items()}
