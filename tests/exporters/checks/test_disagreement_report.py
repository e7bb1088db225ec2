from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the contact sheet is part of training; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import pictures

from exporters.checks.comparison import Flip, compare_answers
from exporters.checks.disagreement_report import save_flips
from exporters.checks.validation_data import ValidationSet

LABELS = ("cat", "dog")


def flipping(files: list[str]) -> tuple[list[tuple[str, Flip]], ValidationSet]:
    """Two images with clearly other answers, then one that is near the border."""
    first = np.array([0.9, 0.9, 0.52, *np.full(len(files) - 3, 0.9)], np.float32)
    other = np.array([0.4, 0.3, 0.48, *np.full(len(files) - 3, 0.9)], np.float32)
    reference, candidate = (np.stack([p, 1 - p], 1) for p in (first, other))
    truth = np.zeros(len(files), np.int64)
    validation = ValidationSet(pictures(len(files)), truth, tuple(files), "images")
    found = compare_answers(reference, candidate, truth)
    return [("model.static.onnx", flip) for flip in found.flips], validation


def test_flips_are_listed_the_surest_first(tmp_path: Path) -> None:
    flips, validation = flipping([f"folder/{number}.jpg" for number in range(5)])
    save_flips(tmp_path, flips, LABELS, validation)
    rows = list(csv.DictReader((tmp_path / "verify-flips.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["folder/0.jpg", "folder/1.jpg", "folder/2.jpg"]
    assert rows[0] == {
        "candidate": "model.static.onnx",
        "file": "folder/0.jpg",
        "truth": "cat",
        "reference_answer": "cat",
        "reference_probability": "0.900000",
        "candidate_answer": "dog",
        "candidate_probability": "0.600000",
        "reference_margin": "0.800000",
    }
    assert (tmp_path / "verify-flips.png").read_bytes().startswith(b"\x89PNG")
    save_flips(tmp_path, [], LABELS, validation)
    assert len((tmp_path / "verify-flips.csv").read_text().splitlines()) == 1
    assert not (tmp_path / "verify-flips.png").exists()


def test_a_class_that_is_not_known_is_said_to_be_so(tmp_path: Path) -> None:
    flips, validation = flipping(["a", "b", "c"])
    blind = [(name, Flip(**{**vars(flip), "truth": -1})) for name, flip in flips]
    save_flips(tmp_path, blind, LABELS, validation)
    rows = list(csv.DictReader((tmp_path / "verify-flips.csv").read_text().splitlines()))
    assert {row["truth"] for row in rows} == {"not known"}


def test_names_in_any_script_and_any_bytes_are_written(tmp_path: Path) -> None:
    """Classes that the font lacks, and a name of a file that is not UTF-8."""
    odd = b"caf\xe9.jpg".decode(errors="surrogateescape")
    flips, validation = flipping([odd, "猫/1.jpg", "猫/2.jpg"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_flips(tmp_path, flips, ("猫", "犬"), validation)
    assert (tmp_path / "verify-flips.png").is_file()
    assert b"caf\xe9.jpg" in (tmp_path / "verify-flips.csv").read_bytes()


def test_the_sheet_shows_each_image_once_and_thirty_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(
        "catdog_edge.training.runs.plots.save_contact_sheet",
        lambda path, cells, title: shown.append((cells, title)),
    )
    files = [f"{number}.png" for number in range(40)]
    validation = ValidationSet(pictures(40), None, tuple(files), "images")
    both = [
        (name, Flip(index, -1, 0, 1, 0.9, 0.6, index / 50, 0.5))
        for name in ("model.onnx", "model.ort")
        for index in range(40)
    ]
    save_flips(tmp_path, both, LABELS, validation)
    ((cells, title),) = shown
    assert len(cells) == 30
    assert cells[0][1].startswith("39.png: not known\nreference cat 0.90\nmodel.onnx dog 0.60")
    assert title.startswith("30 of 40 ")
