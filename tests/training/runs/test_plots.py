"""`data.png`: drawn for two classes and for many, from odd shapes of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from catdog_edge.training.data.load import open_dataset
from catdog_edge.training.runs.plots import SHOWN_CLASSES, save_overview

pytestmark = pytest.mark.train


@pytest.mark.parametrize("classes", [2, SHOWN_CLASSES + 2])
def test_every_class_is_shown(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = tmp_path / "set" / f"class {label:02}"
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
