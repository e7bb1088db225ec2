"""The figures of a run, for few classes and for many."""

from __future__ import annotations

import functools
import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import SampleSource
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.runs import plots
from catdog_edge.training.runs.plots import (
    SHOWN_CLASSES,
    TEXT_CLASSES,
    mistake_caption,
    save_confusion,
    save_contact_sheet,
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


LONG = ("golden retriever puppy", "Maine Coon kitten indoors", "raccoon at the feeding place")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *to, **how: (saved.append(figure), save(figure, *to, **how)),
    )
    return saved


def test_long_captions_do_not_run_over_each_other(tmp_path: Path, figures: list[Figure]) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    labels = [(LONG[i % 3], LONG[(i + 1) % 3]) for i in range(9)]
    captions = [
        mistake_caption(f"IMG_20240102_123456_{i}.jpg", *labels[i], 0.987) for i in range(9)
    ]
    cells = [(image, caption) for caption in captions]
    save_contact_sheet(tmp_path / "mistakes.png", cells, "mistakes")
    titles = (axes.title for axes in figures[0].axes if axes.get_title())
    boxes = [title.get_window_extent().extents for title in titles]
    assert len(boxes) == 9
    for number, (left, bottom, right, top) in enumerate(boxes):
        for x0, y0, x1, y1 in boxes[number + 1 :]:
            assert right < x0 or x1 < left or top < y0 or y1 < bottom


@pytest.mark.parametrize(
    "labels", [("cat", "dog"), LONG, [f"{one} {n}" for n in range(4) for one in LONG]]
)
def test_names_beside_a_confusion_matrix_are_apart(
    labels: Sequence[str], tmp_path: Path, figures: list[Figure]
) -> None:
    save_confusion(tmp_path / "confusion.png", np.eye(len(labels), dtype=np.int64), labels, "x")
    (axes,) = figures[0].axes
    ticks = axes.get_xticklabels()
    edges = [one.get_window_extent().extents for one in ticks]
    level = ticks[0].get_rotation() == 0
    # Names that stand askew may share columns: their right ends, under their cells, are apart.
    assert all(b[0 if level else 2] - a[2] > 8 for a, b in itertools.pairwise(edges))
    drawn = cv2.imread(str(tmp_path / "confusion.png"))
    for side in (drawn[:, 0], drawn[:, -1], drawn[0], drawn[-1]):
        assert (side > 250).all()  # nothing is cut off


def test_without_mistakes_there_is_no_picture_of_them(tmp_path: Path) -> None:
    file = tmp_path / "mistakes.png"
    file.write_bytes(b"of an earlier run")
    save_contact_sheet(file, [], "no mistakes")
    assert not file.exists()


def test_another_font_draws_what_the_usual_one_lacks(tmp_path: Path, figures: list[Figure]) -> None:
    """U+2A7B is in STIX, which comes with matplotlib, and not in DejaVu Sans."""
    save_confusion(
        tmp_path / "confusion.png", np.eye(2, dtype=np.int64), ("cat \u2a7b", "dog"), "x"
    )
    (label, _) = figures[0].axes[0].get_xticklabels()
    assert label.get_fontfamily()[0] == "DejaVu Sans"
    assert "STIXGeneral" in label.get_fontfamily()
    save_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), ("cat", "dog"), "x")
    assert "STIXGeneral" not in figures[1].axes[0].get_xticklabels()[0].get_fontfamily()


def test_a_font_that_is_newer_than_the_list_of_fonts_is_found(
    tmp_path: Path, figures: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stix,) = (one for one in fontManager.ttflist if one.fname.endswith("/STIXGeneral.ttf"))
    fonts = [one for one in fontManager.ttflist if not one.name.startswith("STIX")]
    monkeypatch.setattr(fontManager, "ttflist", fonts)
    monkeypatch.setattr(plots, "findSystemFonts", lambda: [stix.fname])
    save_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), ("\u2a7b", "dog"), "x")
    assert "STIXGeneral" in figures[0].axes[0].get_xticklabels()[0].get_fontfamily()


def test_characters_that_no_font_has_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ("a \U0003ffff", "b \U0003ffff", "dog", "c \U0003ffff", "d \U0003ffff")
    for name in ("confusion.png", "again.png"):  # no character will ever be there
        save_confusion(tmp_path / name, np.eye(5, dtype=np.int64), labels, "x")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "confusion.png: no installed font has all characters of a \U0003ffff, b \U0003ffff, "
        "c \U0003ffff, ... (4 in all), and boxes are drawn; install one (fonts-noto"
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, which are not rendered."""
    kept: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


def row(epoch: int, loss: float, accuracy: float) -> EpochMetrics:
    return EpochMetrics(epoch, 0.1, loss, accuracy, loss + 0.5, accuracy + 0.1, 1.0, 1.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_curves_of_training_and_validation(count: int, drawn: list[Figure]) -> None:
    rows = [row(n, 2.0 - n / 4, n / 5) for n in range(1, count + 1)]
    plots.save_curves(Path("curves.png"), rows, rows[0], "title")
    loss, accuracy = drawn[0].axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("cross entropy", "accuracy, %")
    assert loss.get_ylim() == (0, pytest.approx(1.1 * 2.25))
    assert loss.get_xlim() == (0.5, count + 0.5)
    train, val = loss.lines
    assert list(train.get_ydata()) == [one.train_loss for one in rows]
    assert list(val.get_ydata()) == [one.val_loss for one in rows]
    assert list(accuracy.lines[0].get_ydata()) == [100 * one.train_accuracy for one in rows]
    assert list(accuracy.lines[2].get_ydata()) == [pytest.approx(30)]
    assert train.get_marker() == ("o" if count < 3 else "None")
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["training (augmented)", "validation", "kept: epoch 1, 30.00%"]


@pytest.mark.parametrize(
    ("classes", "rotation", "size", "ticks"),
    [(2, 0, 12, 2), (4, 0, 12, 4), (5, 45, 12, 5), (8, 45, 7, 8), (12, 45, 7, 12),
     (13, 90, 7, 13), (20, 90, 7, 20), (21, 90, 5, 21), (30, 90, 5, 30), (31, 90, 0, 16)],
)  # fmt: skip
def test_a_confusion_matrix_by_the_number_of_classes(
    classes: int, rotation: int, size: int, ticks: int, drawn: list[Figure]
) -> None:
    matrix = np.full((classes, classes), 3)
    np.fill_diagonal(matrix, 1000)
    save_confusion(Path("x.png"), matrix, [f"c{n}" for n in range(classes)], "title")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "answered"
    assert [one.get_rotation() for one in axes.get_xticklabels()] == [rotation] * ticks
    assert [one.get_text() for one in axes.get_yticklabels()][:2] == [
        "c0",
        "c1" if classes < 31 else "c2",
    ]
    sizes = {one.get_fontsize() for one in axes.get_xticklabels() + axes.get_yticklabels()}
    assert sizes == {10 if classes < 13 else 7}
    side = max(4.2, 1.1 * min(classes, 10) + 2)
    assert drawn[0].get_size_inches() == pytest.approx((side + 0.6, side))
    assert len(axes.texts) == (classes**2 if size else 0)
    if size:
        share = 1000 / (1000 + 3 * (classes - 1))
        assert axes.texts[0].get_text() == f"1,000\n{share:.1%}"
        assert axes.texts[0].get_fontsize() == size
        assert [axes.texts[i].get_color() for i in (0, 1)] == ["white", plots.INK]


def test_a_curve_for_each_of_the_worst_sets_of_negatives(drawn: list[Figure]) -> None:
    # A large source counts as much as a small one.
    classes = {"web": np.float32([0.9, 0.8] * 50), "phone": np.float32([0.4, 0.7])}
    negatives = {f"kind/{n:02}": np.float32([0.1, 0.05 * n]) for n in range(12)}
    plots.save_roc(Path("roc.png"), classes, negatives, 0.45)
    (axes,) = drawn[0].axes
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    worst = [*range(6), *range(8, 12)]  # the others separate as well as these, and come later
    assert [label.split()[0] for label in labels] == [f"kind/{n:02}" for n in worst]
    assert labels[-1] == "kind/11 (2): AUROC 0.8750"
    marked = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines[1::2]]
    assert marked == [(50.0 * (0.05 * n >= 0.45), 75.0) for n in worst]
    curve = axes.lines[0]
    assert [round(one) for one in curve.get_ydata()] == [0, 25, 50, 75, 100, 100, 100]
    assert axes.get_ylabel() == "images of the classes answered, % (mean of 2 sources)"
    assert axes.get_xlim() == (-0.5, 55)
    assert axes.get_ylim() == (70, 100.3)


def test_the_marks_of_a_bad_threshold_are_in_view_and_uncovered(
    tmp_path: Path, figures: list[Figure]
) -> None:
    classes = {"web": np.float32([0.9, 0.1, 0.1, 0.1])}
    save = functools.partial(plots.save_roc, tmp_path / "roc.png", classes)
    save({"drawn": np.float32([0.8] * 4), "animals/web": np.float32([0.8, 0.7, 0.6, 0.1])}, 0.5)
    save({"drawn": np.float32([0.2] * 9)}, 0.95)
    for figure, view in zip(figures, [((-0.5, 100.5), (20, 100.3)), ((-0.5, 30), (-0.5, 100.3))]):
        (axes,) = figure.axes
        assert (axes.get_xlim(), axes.get_ylim()) == view
        legend = figure.legends[0].get_window_extent()
        for line in axes.lines[1::2]:
            mark = axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0]))
            assert axes.bbox.contains(*mark)
            assert not legend.contains(*mark)


@pytest.mark.parametrize(
    ("cells", "rows", "columns"),
    [(1, 1, 1), (4, 1, 4), (5, 2, 4), (8, 2, 4), (9, 2, 6), (30, 5, 6)],
)
def test_the_grid_of_a_contact_sheet(
    cells: int, rows: int, columns: int, drawn: list[Figure]
) -> None:
    save_contact_sheet(Path("x.png"), [(np.zeros((4, 4, 3), np.uint8), "caption")] * cells, "t")
    figure = drawn[0]
    assert len(figure.axes) == rows * columns
    assert sum(bool(axes.get_title()) for axes in figure.axes) == cells
    assert figure.get_size_inches() == pytest.approx((max(5.0, 2.1 * columns), 2.55 * rows + 0.6))


def test_names_are_shortened_for_captions() -> None:
    assert plots.short_name("folder/" + "x" * 22) == "x" * 22
    assert plots.short_name("a/0123456789abcdefghijklm") == "0123456789…cdefghijklm"
    assert plots._columns("ab犬") == 4


@pytest.mark.parametrize(("classes", "each"), [(2, 9), (13, 1)])
def test_the_overview_has_a_row_of_images_and_the_counts_of_each_class(
    classes: int, each: int, drawn: list[Figure]
) -> None:
    labels = tuple(f"kind {n}" for n in range(classes))
    splits = ["train"] * (each - 2) + ["val", "test"] if each > 2 else ["test"]
    items = tuple(
        Item(f"cat.{label * each + n}.png", label, split, "")
        for label in range(classes)
        for n, split in enumerate(splits)
    )
    dataset = Dataset("/data/set.zip", labels, items, SampleSource())
    save_overview(Path("data.png"), dataset)
    (figure,) = drawn
    shown = min(classes, 12)
    assert figure.get_suptitle() == f"set.zip: {classes * each} pictures"
    assert figure.get_size_inches() == pytest.approx((12, 1.55 * shown + 1.2))
    images = [axes for axes in figure.axes if axes.images]
    bars = [axes for axes in figure.axes if not axes.images]
    titles = [axes.get_title(loc="left") for axes in images]
    columns = min(6, max(1, each - 2))
    assert titles == [name for n in range(shown) for name in (labels[n], *[""] * (columns - 1))]
    widths = [[bar.get_width() for bar in axes.patches] for axes in bars]
    assert widths == [[splits.count(one) for one in ("train", "val", "test")]] * shown
    assert [text.get_text() for text in bars[0].texts] == [str(width) for width in widths[0]]
    assert list(bars[0].lines[0].get_xdata()) == [0, 0]
    assert bars[0].get_xlim() == (0, pytest.approx(1.22 * max(widths[0])))
    assert [text.get_position()[0] for text in bars[0].texts] == pytest.approx(
        [width + 0.02 * max(widths[0]) for width in widths[0]]
    )
    if each == 9:  # the first and the last of seven, and four between them
        seen = [axes.images[0].get_array()[:, :, ::-1] for axes in images[:6]]
        wanted = [plots._square(dataset.decode(items[n])) for n in (0, 1, 2, 4, 5, 6)]
        assert all(np.array_equal(*pair) for pair in zip(seen, wanted, strict=True))


def test_an_image_is_fitted_into_a_square() -> None:
    frame = np.random.default_rng(0).integers(0, 250, (30, 60, 3), dtype=np.uint8)
    for side, method in ((20, cv2.INTER_AREA), (120, cv2.INTER_CUBIC)):
        square = plots._square(frame, side)
        inside = cv2.resize(frame, (side, side // 2), interpolation=method)
        assert np.array_equal(square[side // 4 : side // 4 + side // 2], inside)
        assert (square[: side // 4] == 255).all()
    assert plots._square(frame).shape == (200, 200, 3)
    assert plots._square(frame[:1], 20)[9:11].min() < 255
