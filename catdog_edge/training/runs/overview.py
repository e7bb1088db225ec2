"""`data.png`: what is about to be trained on, to be looked at before hours are spent on it.

Knows matplotlib; draws without a screen.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from catdog_edge.system.files import atomic_write
from catdog_edge.training.data.dataset import SPLITS, Dataset
from catdog_edge.training.runs.plots import drawable

EACH = 6
"""Pictures shown of each class."""

MOST = 12
"""Classes shown; more are in the counts alone."""

_INK, _MUTED, _GRID = "#1f2430", "#6b7280", "#e5e7eb"
_COLOURS = {"train": "#2563eb", "val": "#ea580c", "test": "#15803d"}


def save_overview(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Draw a row of training pictures for each class, and how many there are in each split.

    The pictures are spread evenly over the names of the class's training pictures.

    Raises:
        CatdogError: The file cannot be written, or a picture has changed.
    """
    labels = dataset.labels[:MOST]
    counts = dataset.counts()
    figure = Figure(figsize=(12, 1.55 * len(labels) + 1.2), layout="constrained")
    kind = "drawings" if dataset.is_sample else "pictures"
    source = "the drawn sample" if dataset.is_sample else Path(dataset.source).name
    # Names may hold `$`: they are text, no formulas.
    title = f"{source}: {len(dataset.items):,} {kind}"
    figure.suptitle(drawable(title), color=_INK, fontsize=13, parse_math=False)
    grid = figure.add_gridspec(len(labels), EACH + 3)
    most = max(max(split.values()) for split in counts.values())
    for row, label in enumerate(labels):
        of_class = [item for item in dataset.items if item.label == row]
        shown = [item for item in of_class if item.split == "train"] or of_class
        picks = np.linspace(0, len(shown) - 1, min(EACH, len(shown))).round().astype(int)
        for column, pick in enumerate(picks):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_square(dataset.decode(shown[pick]))[:, :, ::-1])
            axes.set_axis_off()
            if column == 0:
                axes.set_title(
                    drawable(label), color=_INK, fontsize=12, loc="left", fontweight="bold",
                    parse_math=False,
                )  # fmt: skip
        axes = figure.add_subplot(grid[row, EACH:])
        values = [counts[split][label] for split in SPLITS]
        axes.barh(SPLITS, values, color=[_COLOURS[split] for split in SPLITS], height=0.62)
        for place, value in enumerate(values):
            axes.text(value + most * 0.02, place, f"{value:,}", va="center", color=_INK)
        axes.set_xlim(0, most * 1.22)
        axes.invert_yaxis()
        axes.tick_params(length=0, labelcolor=_MUTED, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.axvline(0, color=_GRID)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, facecolor="white")


def _square(frame: npt.NDArray[np.uint8], side: int = 200) -> npt.NDArray[np.uint8]:
    """The whole picture, its own aspect kept, on white: `uint8 [side,side,3]`."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(frame, size, interpolation=how)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square
