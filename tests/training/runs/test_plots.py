"""The figures of a run, for few classes and for many."""

from __future__ import annotations

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

from catdog_edge.training.data.open_dataset import open_dataset
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
    labels = ("a \U0003ffff", "dog")  # no character will ever be there
    for name in ("confusion.png", "again.png"):
        save_confusion(tmp_path / name, np.eye(2, dtype=np.int64), labels, "x")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "confusion.png: no installed font has all characters of a \U0003ffff, and boxes are drawn; "
        "install one (fonts-noto"
    )
