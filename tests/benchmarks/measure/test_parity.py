"""Answers against answers: what a person would count by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.measure.parity import ask_all, compare, flips_of, write_flips
from catdog_edge.errors import ModelError

LABELS = ("cat", "dog")
#                     both right   only ref     only row    both wrong
REFERENCE = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], np.float32)
ROW = np.array([[0.8, 0.2], [0.45, 0.55], [0.7, 0.3], [0.1, 0.9]], np.float32)
TRUTH = np.array([0, 0, 0, 0])


def test_every_figure_of_four_pictures():
    found = compare(ROW, REFERENCE, TRUTH, LABELS)
    assert found.evaluation.accuracy == 0.5
    assert found.agreement == 0.5
    assert (found.only_row_right, found.only_reference_right) == (1, 1)
    assert found.difference == 0.0
    assert found.difference_low < 0 < found.difference_high
    assert found.mcnemar_p == 1.0
    assert found.max_difference == pytest.approx(0.4, abs=1e-6)
    assert found.mean_difference == pytest.approx((0.1 + 0.15 + 0.4 + 0.1) / 4, abs=1e-6)
    assert found.flips == (1, 2)


def test_the_same_answers_agree_and_say_so_with_an_interval():
    found = compare(REFERENCE, REFERENCE, TRUTH, LABELS)
    assert (found.agreement, found.max_difference, found.flips) == (1.0, 0.0, ())
    assert found.agreement_low < 1.0  # four pictures prove little
    document = found.to_dict()
    assert document["flips"] == 0
    assert document["accuracy"] == 0.5
    assert document["precision"] == [1.0, 0.0]
    assert sum(one["count"] for one in document["calibration"]) == 4


def test_one_sided_losses_are_significant():
    truth = np.zeros(40, dtype=np.int64)
    right = np.tile(np.array([[0.9, 0.1]], np.float32), (40, 1))
    worse = right.copy()
    worse[:12] = [0.2, 0.8]
    found = compare(worse, right, truth, LABELS)
    assert found.difference == pytest.approx(-0.3)
    assert found.difference_high < 0
    assert found.mcnemar_p == pytest.approx(2 / 2**12)


def test_answers_of_other_pictures_are_refused():
    with pytest.raises(ValueError, match="same pictures"):
        compare(ROW[:2], REFERENCE, TRUTH, LABELS)
    with pytest.raises(ValueError, match="same pictures"):
        compare(ROW, REFERENCE, TRUTH[:2], LABELS)


def test_an_answer_that_is_no_number_is_told_with_the_row_at_once():
    frames = [np.zeros((4, 4, 3), np.uint8)] * 3

    def ask(batch):
        return np.array([[np.nan, 0.5]], np.float32)

    with pytest.raises(ModelError, match="model answers with what is no number") as caught:
        ask_all({"good": lambda batch: np.array([[0.5, 0.5]], np.float32), "model": ask}, frames)
    assert caught.value.exit_code == 1


def test_flips_come_with_both_answers_the_most_different_first(tmp_path):
    flips = flips_of("model", ROW, REFERENCE, TRUTH, LABELS, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    assert [flip.file for flip in flips] == ["c.jpg", "b.jpg"]
    assert [flip.right for flip in flips] == ["row", "reference"]
    write_flips(tmp_path / "flips.csv", flips)
    with (tmp_path / "flips.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "row": "model",
        "file": "c.jpg",
        "label": "cat",
        "reference_answer": "dog",
        "reference_confidence": "0.700000",
        "answer": "cat",
        "confidence": "0.700000",
        "right": "row",
        "pictures": "test",
    }
    write_flips(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text().startswith("row,file,label,")


def test_rows_are_asked_one_frame_at_a_time_in_order_and_in_bounded_memory():
    alive = []

    def frames():
        for number in range(150):
            alive.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    asked = []

    def ask(batch):
        asked.append(len(batch))
        assert len(alive) - int(batch[0][0, 0, 0]) <= 64  # no more than a chunk ahead
        return np.array([[batch[0][0, 0, 0] / 255, 0.0]], np.float32)

    answers = ask_all({"a": ask, "b": ask}, frames())
    assert set(asked) == {1}
    assert answers["a"].shape == (150, 2)
    assert (answers["b"][:, 0] * 255).round().tolist() == list(range(150))
    with pytest.raises(ValueError, match="no frames"):
        ask_all({"a": ask}, [])
