"""What an evaluation says: all of few classes, the worst of many."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.training.evaluation.classification_report import (
    Evaluation,
    evaluate,
    shorten_label,
)


def predicted(answers: list[int] | np.ndarray, classes: int) -> np.ndarray:
    probabilities = np.full((len(answers), classes), 0.1 / (classes - 1), np.float32)
    probabilities[np.arange(len(answers)), answers] = 0.9
    return probabilities


@pytest.fixture
def imbalanced() -> Evaluation:
    truth = np.array([0] * 18 + [1] * 2)
    return evaluate(predicted([0] * 19 + [1], 2), truth, ("cat", "dog"))


def test_balanced_accuracy_is_the_mean_recall(imbalanced: Evaluation) -> None:
    assert imbalanced.accuracy == pytest.approx(0.95)
    assert imbalanced.balanced_accuracy == pytest.approx(0.75)
    lines = str(imbalanced).splitlines()
    assert lines[0].startswith("accuracy    95.00%")
    assert lines[1].startswith("balanced    75.00%")


def test_a_class_without_test_images_counts_in_no_mean() -> None:
    result = evaluate(predicted([0, 1], 3), np.array([0, 0]), ("a", "b", "c"))
    assert result.balanced_accuracy == pytest.approx(0.5)
    assert json.loads(json.dumps(result.to_dict()))["recall"] == [0.5, None, None]


def test_of_few_classes_every_count_is_shown(imbalanced: Evaluation) -> None:
    rows = [line.split() for line in str(imbalanced).splitlines()]
    assert ["cat", "94.74%", "100.00%", "18", "0"] in rows
    assert ["dog", "100.00%", "50.00%", "1", "1"] in rows
    document = imbalanced.to_dict()
    assert document["confusion"] == [[18, 0], [1, 1]]
    assert document["most_confused"] == [{"truth": "dog", "answer": "cat", "count": 1}]


@pytest.mark.parametrize("classes", [300, 1000])
def test_of_many_classes_the_worst_are_shown_in_bounded_size(classes: int) -> None:
    truth = np.arange(classes).repeat(3)
    answers = truth.copy()
    answers[21:24] = 9  # class 7, all wrong, all alike
    answers[60] = 3  # one of class 20
    labels = tuple(f"class {number:04} " + "x" * 90 for number in range(classes))
    result = evaluate(predicted(answers, classes), truth, labels)
    lines = str(result).splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100
    assert f"the 10 of {classes:,} classes with the lowest recall" in lines
    assert "class 0007" in lines[8]
    assert any(line.split()[:3] == ["3", "class", "0007"] for line in lines)
    document = result.to_dict()
    assert document["confusion"] is None
    assert document["most_confused"][0] == {"truth": labels[7], "answer": labels[9], "count": 3}
    assert len(document["most_confused"]) == 2
    assert len(json.dumps({**document, "labels": []})) < 100 * classes


def test_names_are_shortened_and_escaped_for_a_table() -> None:
    assert shorten_label("cat") == "cat"
    assert shorten_label(f"kind{'c' * 80}{7}") == "kindcccccccc…cccccccccc7"
    assert shorten_label("a\nb") == "a\\nb"


@pytest.mark.parametrize(("classes", "whole"), [(100, True), (101, False)])
def test_json_holds_the_matrix_of_a_hundred_classes(classes: int, whole: bool) -> None:
    truth = np.arange(classes)
    result = evaluate(predicted(truth, classes), truth, tuple(map(str, truth)))
    assert (result.to_dict()["confusion"] is not None) is whole


@pytest.mark.parametrize(("classes", "shown"), [(8, "answered as:"), (9, "the 9 of 9 classes")])
def test_a_text_shows_the_matrix_of_eight_classes(classes: int, shown: str) -> None:
    truth = np.arange(classes)
    result = evaluate(predicted(truth, classes), truth, tuple(map(str, truth)))
    assert shown in str(result)
    assert result.most_confused()[0][2] == 0
    assert result.log_loss == pytest.approx(-np.log(0.9))
    assert result.expected_calibration_error == pytest.approx(0.1)
