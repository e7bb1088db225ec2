"""The figures of a run, for few classes and for many."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes

from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.runs.plots import (
    SHOWN_CLASSES,
    TEXT_CLASSES,
    save_confusion,
    save_overview,
)

pytestmark = pytest.mark.train


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, SHOWN_CLASSES + 2])
def test_every_class_is_shown(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = tmp_path / "set" / f"kind {label:02}"
        folder.mkdir(parents=True)
        for number in range(9):
            height, width = rng.integers(1, 400, 2)
            colour = np.full((height, width, 3), (number * 20, label * 15, 255 - label * 15))
            cv2.imwrite(str(folder / f"{number}.png"), colour.astype(np.uint8))
    dataset = open_dataset(tmp_path / "set", split=(100, 0, 0))
    save_overview(tmp_path / "data.png", dataset)
    drawn = cv2.imread(str(tmp_path / "data.png"))
    assert drawn.shape[0] > 120 * min(classes, SHOWN_CLASSES)
    for label in range(min(classes, SHOWN_CLASSES)):
        colour = np.array((label * 15, 255 - label * 15))
        shown = (np.abs(drawn[..., 1:].astype(int) - colour) < 3).all(axis=2)
        assert shown.sum() > 500, label


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 30, 31, 1000])
def test_a_confusion_matrix_of_any_size_is_a_picture_of_bounded_size(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    text = Axes.text

    def counted(axes: Axes, *arguments: object, **more: object) -> object:
        texts.append(str(arguments[2]))
        return text(axes, *arguments, **more)

    monkeypatch.setattr(Axes, "text", counted)
    matrix = np.diag(np.full(classes, 7))
    matrix[0, -1] = 3
    labels = [f"a class with a long name {number}" for number in range(classes)]
    tracemalloc.start()
    save_confusion(tmp_path / "confusion.png", matrix, labels, "validation")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    drawn = cv2.imread(str(tmp_path / "confusion.png"))
    assert max(drawn.shape) < 2500
    assert len(texts) == (classes**2 if classes <= TEXT_CLASSES else 0)
    # The diagonal is dark, from corner to corner.
    dark = (drawn[..., 0].astype(int) - drawn[..., 2] > 60).any(axis=1)
    assert dark.mean() > 0.4
