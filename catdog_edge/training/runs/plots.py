"""The pictures of a run: `curves.png`, `confusion.png`, `mistakes.png`.

Knows matplotlib; draws without a screen. Every figure is written whole or not at all.
Names of files and classes may hold `$`: text from outside is never read as a formula.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catdog_edge.system.files import atomic_write
from catdog_edge.training.engine.trainer import EpochRow

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
TRAIN, VAL, GOOD = "#2563eb", "#ea580c", "#15803d"


@dataclass(frozen=True)
class Mistake:
    """A picture that was answered wrong.

    Attributes:
        picture: `uint8 [H,W,3]`, BGR.
        file: Its name in the data.
        truth: The label of the data.
        answer: The label that was answered.
        confidence: Of the answer, 0..1.
    """

    picture: npt.NDArray[np.uint8]
    file: str
    truth: str
    answer: str
    confidence: float


def save_curves(path: Path, rows: Sequence[EpochRow], best: EpochRow, title: str) -> None:
    """Loss and accuracy per epoch, for the training and the validation pictures."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(drawable(title), color=INK, fontsize=12, parse_math=False)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    marker = "o" if len(rows) < 3 else None
    for axes, name, unit in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
        for side, colour in (("train", TRAIN), ("val", VAL)):
            values = [getattr(row, f"{side}_{name}") * unit for row in rows]
            label = "training (augmented)" if side == "train" else "validation"
            axes.plot(epochs, values, color=colour, linewidth=2, label=label, marker=marker)
        axes.set_xlabel("epoch", color=MUTED)
        _plain(axes)
    loss.set_ylabel("cross entropy", color=MUTED)
    loss.set_ylim(0, 1.1 * max(max(row.train_loss, row.val_loss) for row in rows))
    for axes in (loss, accuracy):
        axes.set_xlim(min(0.5, epochs[0]), epochs[-1] + 0.5)
    accuracy.set_ylabel("accuracy, %", color=MUTED)
    accuracy.plot(
        best.epoch, 100 * best.val_accuracy, "o", color=GOOD, markersize=10, zorder=3,
        markerfacecolor="none", markeredgewidth=2,
        label=f"kept: epoch {best.epoch}, {best.val_accuracy:.2%}",
    )  # fmt: skip
    loss.legend(frameon=False, labelcolor=INK)
    accuracy.legend(frameon=False, labelcolor=INK, loc="lower right")
    _save(figure, path)


def save_confusion(
    path: Path, matrix: npt.NDArray[np.int64], labels: Sequence[str], title: str
) -> None:
    """Rows are true classes, columns answers; counts, and shares of the row as shade."""
    classes = len(labels)
    side = max(4.2, 1.1 * classes + 2)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    figure.suptitle(drawable(title), color=INK, fontsize=12, parse_math=False)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(classes):
        for column in range(classes):
            axes.text(
                column, row, f"{matrix[row, column]:,}\n{shares[row, column]:.1%}",
                ha="center", va="center", fontsize=12 if classes < 8 else 7,
                color="white" if shares[row, column] > 0.55 else INK,
            )  # fmt: skip
    labels = [drawable(label) for label in labels]
    turned = 0 if classes < 5 else 45
    axes.set_xticks(range(classes), labels, rotation=turned, color=INK, parse_math=False)
    axes.set_yticks(range(classes), labels, color=INK, parse_math=False)
    axes.set_xlabel("answered", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _save(figure, path)


def save_mistakes(path: Path, mistakes: Sequence[Mistake], title: str) -> None:
    """A contact sheet of errors, the most confident first, each with its name."""
    cells = [
        (
            mistake.picture,
            f"{short_name(mistake.file)}\n"
            f"{mistake.truth}, answered {mistake.answer} {mistake.confidence:.2f}",
        )
        for mistake in mistakes
    ]
    save_sheet(path, cells, title, nothing="no mistakes")


def save_sheet(
    path: Path, cells: Sequence[tuple[npt.NDArray[np.uint8], str]], title: str, nothing: str
) -> None:
    """A contact sheet: pictures in a grid, each under its caption.

    Args:
        path: The PNG to write.
        cells: Picture (`uint8 [H,W,3]`, BGR) and caption, in the order to show them.
        title: Above the sheet.
        nothing: What to say where there are no pictures.
    """
    columns = 6 if len(cells) > 8 else max(1, min(4, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    figure = Figure(figsize=(max(5.0, 2.1 * columns), 2.55 * rows + 0.6), layout="constrained")
    figure.suptitle(drawable(title), color=INK, fontsize=12, parse_math=False)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (picture, caption) in zip(grid, cells, strict=False):
        axes.imshow(picture[:, :, ::-1])
        axes.set_title(drawable(caption), fontsize=8, color=INK, parse_math=False)
    if not cells:
        grid[0].text(0.5, 0.5, nothing, ha="center", color=MUTED)
    _save(figure, path)


def drawable(text: str) -> str:
    """Text without what a font cannot draw at all: bytes of a file's name that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def short_name(file: str) -> str:
    """The last part of a name, short enough for a caption."""
    name = file.rsplit("/", 1)[-1]
    return name if len(name) <= 22 else name[:10] + "…" + name[-11:]


def _plain(axes) -> None:  # type: ignore[no-untyped-def]
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # A class may be named in a script that the font lacks: it is drawn as boxes, no more.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, dpi=120, facecolor="white")
