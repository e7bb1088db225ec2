"""Answers against answers: what a person would count by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.measure.corruptions import CORRUPTIONS, corrupt
from benchmarks.measure.parity import (
    ImageSet,
    class_figures,
    classify_all,
    compare_rows,
    write_disagreements,
)
from catdog_edge.errors import ModelError
from catdog_edge.training.data.dataset import Item

LABELS = ("cat", "dog")
#                     both right   only ref     only row    both wrong
REFERENCE = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], np.float32)
ROW = np.array([[0.8, 0.2], [0.45, 0.55], [0.7, 0.3], [0.1, 0.9]], np.float32)
TRUTH = np.array([0, 0, 0, 0])


class Pictures:
    """A data set of flat pictures."""

    labels = LABELS

    def decode(self, item):
        return np.full((20, 20, 3), 10 * int(item.digest), np.uint8)


def image_set(truth=TRUTH, **options):
    items = [Item(f"{'abcd'[i % 4]}.jpg", int(t), "test", str(i)) for i, t in enumerate(truth)]
    return ImageSet("test", Pictures(), items, **options)


def figures(row, reference, truth=TRUTH):
    found, _ = compare_rows({"pytorch": reference, "model": row}, image_set(truth))
    return found["model"]


def test_every_figure_of_four_pictures():
    found = figures(ROW, REFERENCE)
    assert (found["pictures"], found["correct"], found["accuracy"]) == (4, 2, 0.5)
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]
    assert found["agreement"] == 0.5
    assert found["agreement_low"] < 0.5 < found["agreement_high"]
    assert (found["only_row_right"], found["only_reference_right"]) == (1, 1)
    assert found["difference"] == 0.0
    assert found["difference_low"] < 0 < found["difference_high"]
    assert found["mcnemar_p"] == 1.0
    assert found["max_difference"] == pytest.approx(0.4, abs=1e-6)
    assert found["mean_difference"] == pytest.approx((0.1 + 0.15 + 0.4 + 0.1) / 4, abs=1e-6)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.45, 0.7, 0.1]).mean())
    assert found["flips"] == 2
    assert sum(one["count"] for one in found["calibration"]) == 4


def test_the_same_answers_agree_and_say_so_with_an_interval():
    found = figures(REFERENCE, REFERENCE)
    assert (found["agreement"], found["max_difference"], found["flips"]) == (1.0, 0.0, 0)
    assert found["agreement_low"] < 1.0  # four pictures prove little


def test_one_sided_losses_are_significant():
    truth = np.zeros(40, dtype=np.int64)
    right = np.tile(np.array([[0.9, 0.1]], np.float32), (40, 1))
    worse = right.copy()
    worse[:12] = [0.2, 0.8]
    found = figures(worse, right, truth)
    assert found["difference"] == pytest.approx(-0.3)
    assert found["difference_high"] < 0
    assert found["mcnemar_p"] == pytest.approx(2 / 2**12)
    assert (found["correct"], found["accuracy"]) == (28, pytest.approx(0.7))


def test_classes_have_precision_and_recall_and_one_matrix():
    other = ROW[[0, 0, 2, 3]]  # right three times
    found = class_figures({"pytorch": REFERENCE, "model": other}, TRUTH)
    assert found["rows"]["pytorch"] == {"precision": [1.0, 0.0], "recall": [0.5, None]}
    assert found["rows"]["model"] == {"precision": [1.0, 0.0], "recall": [0.75, None]}
    assert found["confusion"] == [[0, 0, 2], [0, 1, 2]]


def test_disagreements_come_with_both_answers_the_most_different_first(tmp_path):
    _, found = compare_rows({"pytorch": REFERENCE, "model": ROW}, image_set())
    assert [one.file for one in found] == ["c.jpg", "b.jpg"]
    assert [one.right for one in found] == ["row", "reference"]
    assert [one.index for one in found] == [2, 1]
    write_disagreements(tmp_path / "flips.csv", found)
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
    write_disagreements(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text().startswith("row,file,label,")


def test_an_image_of_a_corrupted_set_is_what_the_rows_see():
    blur = next(one for one in CORRUPTIONS if one.name == "noise")
    images = image_set(corruption=blur)
    plain = image_set()
    for index, frame in enumerate(images.frames()):
        assert np.array_equal(frame, images.frame(index))
        assert np.array_equal(frame, corrupt(blur, plain.frame(index), str(index)))
    assert images.truth.tolist() == TRUTH.tolist()


def test_an_answer_that_is_no_number_is_told_with_the_row_at_once():
    frames = [np.zeros((4, 4, 3), np.uint8)] * 3

    def ask(batch):
        return np.array([[np.nan, 0.5]], np.float32)

    with pytest.raises(ModelError, match="model returns values that are not numbers") as caught:
        classify_all(
            {"good": lambda batch: np.array([[0.5, 0.5]], np.float32), "model": ask}, frames
        )
    assert caught.value.exit_code == 1


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

    answers = classify_all({"a": ask, "b": ask}, frames())
    assert set(asked) == {1}
    assert answers["a"].shape == (150, 2)
    assert (answers["b"][:, 0] * 255).round().tolist() == list(range(150))
    with pytest.raises(ValueError, match="at least one array"):
        classify_all({"a": ask}, [])
