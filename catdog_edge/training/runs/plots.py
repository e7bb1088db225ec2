"""The figures of a run: `data.png`, `curves.png`, `confusion.png`, `mistakes.png`, `roc.png`.

Names of files and classes may hold `$`, so no text is parsed as a formula.
"""

from __future__ import annotations

import contextlib
import logging
import os
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from catdog_edge.errors import list_names
from catdog_edge.system.files import atomic_write
from catdog_edge.training.array_types import Float32, Labels, Pixels
from catdog_edge.training.data.dataset import SPLITS, Dataset
from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.evaluation.classification_report import shorten_label
from catdog_edge.training.evaluation.rejection import auroc, roc_curve

log = logging.getLogger(__name__)

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
TRAIN, VAL, TEST = "#2563eb", "#ea580c", "#15803d"
STYLE: Any = {
    "text.color": INK, "text.parse_math": False, "axes.labelcolor": MUTED, "axes.edgecolor": GRID,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False,
    "legend.labelcolor": INK, "savefig.dpi": 120, "savefig.facecolor": "white",
    "savefig.bbox": "tight",  # a long name is never cut off
}  # fmt: skip

SHOWN_CLASSES = 12  # classes in `data.png`
SHOWN_IMAGES = 6  # images of each class in `data.png`
TEXT_CLASSES = 30  # classes up to which `confusion.png` has counts, and class names on an axis
CAPTION = 28  # columns of a caption
FONTS = "fonts-noto-core and fonts-noto-cjk on Debian and Ubuntu"
_WARNED: set[int] = set()  # characters without a font that a warning has named
CURVES = 10  # curves in `roc.png`: those of the worst sets of negatives


@rc_context(STYLE)
def save_overview(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Draw `data.png`: training images of each class, and the number of images in each split."""
    labels = dataset.labels[:SHOWN_CLASSES]
    counts = dataset.counts()
    most = max(max(split.values()) for split in counts.values())
    kind = "drawings" if dataset.is_sample else "pictures"
    title = f"{dataset.short_name}: {len(dataset.items):,} {kind}"
    figure = _figure(12, 1.55 * len(labels) + 1.2, title)
    grid = figure.add_gridspec(len(labels), SHOWN_IMAGES + 3)
    for row, label in enumerate(labels):
        of_class = [item for item in dataset.items if item.label == row]
        shown = [item for item in of_class if item.split == "train"] or of_class
        # Spread evenly over the names.
        picks = np.linspace(0, len(shown) - 1, min(SHOWN_IMAGES, len(shown))).round().astype(int)
        for column, pick in enumerate(picks):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_square(dataset.decode(shown[pick]))[:, :, ::-1])
            axes.set_axis_off()
            if column == 0:
                name = drawable(shorten_label(label))
                axes.set_title(name, fontsize=12, fontweight="bold", loc="left")
        axes = figure.add_subplot(grid[row, SHOWN_IMAGES:])
        values = [counts[split][label] for split in SPLITS]
        axes.barh(SPLITS, values, color=[TRAIN, VAL, TEST], height=0.62)
        for place, value in enumerate(values):
            axes.text(value + most * 0.02, place, f"{value:,}", va="center")
        axes.set_xlim(0, most * 1.22)
        axes.invert_yaxis()
        axes.tick_params(labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.axvline(0, color=GRID)
    _save(figure, path)


@rc_context(STYLE)
def save_curves(path: Path, epochs: Sequence[EpochMetrics], best: EpochMetrics, title: str) -> None:
    """Draw `curves.png`: loss and accuracy per epoch, of training and validation images."""
    figure = _figure(10, 4.2, title)
    loss, accuracy = figure.subplots(1, 2)
    numbers = [one.epoch for one in epochs]
    marker = "o" if len(epochs) < 3 else None
    for axes, name, unit in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
        for side, colour in (("train", TRAIN), ("val", VAL)):
            values = [getattr(one, f"{side}_{name}") * unit for one in epochs]
            label = "training (augmented)" if side == "train" else "validation"
            axes.plot(numbers, values, color=colour, linewidth=2, label=label, marker=marker)
        _style(axes)
        axes.set(xlabel="epoch", xlim=(min(0.5, numbers[0]), numbers[-1] + 0.5))
    highest = max(max(one.train_loss, one.val_loss) for one in epochs)
    loss.set(ylabel="cross entropy", ylim=(0, 1.1 * highest))
    accuracy.set_ylabel("accuracy, %")
    accuracy.plot(
        best.epoch, 100 * best.val_accuracy, "o", color=TEST, markersize=10, zorder=3,
        markerfacecolor="none", markeredgewidth=2,
        label=f"kept: epoch {best.epoch}, {best.val_accuracy:.2%}",
    )  # fmt: skip
    loss.legend()
    accuracy.legend(loc="lower right")
    _save(figure, path)


@rc_context(STYLE)
def save_confusion(path: Path, matrix: Labels, labels: Sequence[str], title: str) -> None:
    """Draw `confusion.png`: a matrix `int64 [K,K]`, a row per true class, as shares of the row.

    Beyond `TEXT_CLASSES` classes it is a heat map of bounded size that names some of the classes.
    """
    classes = len(labels)
    texts = classes <= TEXT_CLASSES
    side = max(4.2, 1.1 * min(classes, 10) + 2)
    figure = _figure(side + 0.6, side, title)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if texts else "auto")
    if texts:
        fontsize = 12 if classes < 8 else 7 if classes <= 20 else 5
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            axes.text(
                column, row, f"{count:,}\n{share:.1%}", ha="center", va="center",
                fontsize=fontsize, color="white" if share > 0.55 else INK,
            )  # fmt: skip
    # As many names as fit.
    ticks = range(0, classes, -(-classes // TEXT_CLASSES))
    names = [drawable(shorten_label(labels[tick])) for tick in ticks]
    level = classes < 5 and max(map(_columns, names)) <= 12
    rotation = 0 if level else 45 if classes <= 12 else 90
    axes.set_xticks(ticks, names, rotation=rotation, color=INK)
    if rotation == 45:
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names, color=INK)
    axes.set(xlabel="answered", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=10 if classes <= 12 else 7)
    _save(figure, path)


@rc_context(STYLE)
def save_roc(
    path: Path, classes: Mapping[str, Float32], negatives: Mapping[str, Float32], threshold: float
) -> None:
    """Draw `roc.png`: the share of accepted images of the classes against that of negatives.

    Scores are `float32 [N]` by group. Each group of negatives has a curve, on which the model's
    threshold is marked; beyond `CURVES` groups, those with the lowest AUROC. Shares of the classes
    are means over their groups, as in the choice of the threshold.
    """
    title = f"neither: the classes and the rest at every threshold ({threshold:.3g} marked)"
    figure = _figure(7.5, 6.5, title)
    axes = figure.subplots()
    answered = 100 * fmean(float((one >= threshold).mean()) for one in classes.values())
    areas = {name: fmean(auroc(o, n) for o in classes.values()) for name, n in negatives.items()}
    worst = sorted((area, name) for name, area in areas.items())[:CURVES]
    marks: list[float] = []
    for number, (area, name) in enumerate(sorted(worst, key=lambda pair: pair[1])):
        others = negatives[name]
        accepted, kept = roc_curve(classes, others)
        label = f"{shorten_label(name)} ({len(others):,}): AUROC {area:.4f}"
        colour = f"C{number % 10}"
        axes.plot(100 * accepted, 100 * kept, color=colour, label=drawable(label))
        marks.append(100 * float((others >= threshold).mean()))
        axes.plot(marks[-1], answered, "o", color=colour, clip_on=False)
    _style(axes)
    # The corner of good models, widened to the marks of a bad one.
    right, bottom = max(30.0, max(marks) + 5), min(70.0, answered - 5)
    axes.set(xlim=(-0.5, min(right, 100.5)), xlabel="negatives wrongly accepted, %")
    mean = f" (mean of {len(classes)} sources)" * (len(classes) > 1)
    axes.set(ylim=(max(bottom, -0.5), 100.3), ylabel=f"images of the classes answered, %{mean}")
    # Below the axes, where it hides no mark.
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    _save(figure, path)


def mistake_caption(file: str, truth: str, answer: str, confidence: float) -> str:
    """Return the caption of a misclassified image; the confidence is 0..1."""
    labels = f"{shorten_label(truth)}, answered {shorten_label(answer)}"
    return f"{short_name(file)}\n{labels} {confidence:.2f}"


@rc_context(STYLE)
def save_contact_sheet(path: Path, cells: Sequence[tuple[Pixels, str]], title: str) -> None:
    """Draw `mistakes.png`: images `uint8 [H,W,3]`, BGR, in a grid, each under its caption.

    Without images no file is written, and an earlier one is removed.
    """
    if not cells:
        path.unlink(missing_ok=True)
        return
    columns = 6 if len(cells) > 8 else max(1, min(4, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    figure = _figure(max(5.0, 2.1 * columns), 2.55 * rows + 0.6, title)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (picture, caption) in zip(grid, cells):
        axes.imshow(picture[:, :, ::-1])
        lines = (part for line in drawable(caption).split("\n") for part in _wrapped(line))
        axes.set_title("\n".join(lines), fontsize=8)
    _save(figure, path)


def drawable(text: str) -> str:
    """Replace what no font can draw: bytes of a file name that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def short_name(file: str) -> str:
    """Shorten the last part of a file name for a caption."""
    name = file.rsplit("/", 1)[-1]
    return name if len(name) <= 22 else name[:10] + "…" + name[-11:]


def _columns(text: str) -> int:
    """Return the width of a text; letters of Chinese, Japanese and Korean take two columns."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _wrapped(line: str) -> list[str]:
    """Wrap a line of a caption to the width of its image."""
    return textwrap.wrap(line, CAPTION * len(line) // max(1, _columns(line))) or [""]


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(drawable(title), fontsize=12)
    return figure


def _style(axes: Axes) -> None:
    axes.grid(linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _square(frame: Pixels, side: int = 200) -> Pixels:
    """Fit an image into a white square: `uint8 [side,side,3]`."""
    scale = side / max(frame.shape[:2])
    height, width = (max(1, round(scale * length)) for length in frame.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    resized = cv2.resize(frame, (width, height), interpolation=method)
    square[top : top + height, left : left + width] = resized
    return square


def _choose_fonts(figure: Figure, file: str) -> None:
    """Use system fonts for glyphs that matplotlib's font lacks; warn once about missing ones."""
    texts = [one for one in figure.findobj(Text) if isinstance(one, Text)]
    own = get_font(findfont("DejaVu Sans")).get_charmap()
    missing = {ord(char) for one in texts for char in one.get_text() if not char.isspace()} - {*own}
    families = ["DejaVu Sans"]
    for font in _installed_fonts() if missing else ():
        with contextlib.suppress(OSError, RuntimeError):  # a font that FreeType cannot scale
            found = missing & {*get_font(font.fname).get_charmap()}
            if found and not font.name.startswith("Last Resort"):
                families.append(font.name)
                missing -= found
        if not missing:
            break
    for one in texts:
        one.set_fontfamily(families)
    if missing - _WARNED:
        boxes = {one.get_text(): None for one in texts if missing & {*map(ord, one.get_text())}}
        log.warning(
            f"{file}: no installed font has all characters of {list_names([*boxes], 3)}, and "
            f"boxes are drawn; install one ({FONTS})"
        )
        _WARNED.update(missing)


def _installed_fonts() -> Iterator[FontEntry]:
    """Yield the fonts of matplotlib's list, then those that were installed after it was made."""
    listed = sorted(fontManager.ttflist, key=lambda font: (font.style != "normal", font.name))
    yield from listed
    for file in sorted({*findSystemFonts()} - {font.fname for font in listed}):
        count = len(fontManager.ttflist)
        with contextlib.suppress(OSError, RuntimeError):
            fontManager.addfont(file)
        yield from fontManager.ttflist[count:]


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    _choose_fonts(figure, Path(path).name)
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png")
