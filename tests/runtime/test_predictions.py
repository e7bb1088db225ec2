"""Predictions of a model's outputs: rejection, and outputs that are no probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.images.toy_frames import BLUE, GREY, RED, frame_of
from support.paths import DATA, TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError
from catdog_edge.runtime.predictions import to_predictions
from catdog_edge.spec import Rejection


def test_scores_are_the_largest_probability_or_an_output_of_their_own() -> None:
    frames = [RED, BLUE, GREY, frame_of(120, 128, 136)]
    plain = Classifier(TINY)
    scores = plain.scores(frames)
    assert (scores.shape, scores.dtype) == ((4,), np.float32)
    np.testing.assert_array_equal(scores, plain.probabilities(frames).max(axis=1))
    assert [answer.confidence for answer in plain.batch(frames)] == scores.tolist()
    assert plain.scores([]).shape == (0,)
    known = Classifier(DATA / "tiny_known.onnx")
    red, grey = known.scores([RED, GREY])
    assert red > 0.9 > grey
    assert grey != known.probabilities([GREY]).max()


def test_rejection_follows_the_spec_and_the_argument() -> None:
    rejecting = DATA / "tiny_rejecting.onnx"
    assert Classifier(rejecting)(GREY).label == "neither"
    assert Classifier(rejecting)(RED).label == "cat"
    assert Classifier(rejecting, reject=False)(GREY).label in ("cat", "dog")
    assert Classifier(rejecting, reject=0)(GREY).label in ("cat", "dog")
    assert Classifier(rejecting, reject=0.4)(GREY).label in ("cat", "dog")
    assert Classifier(TINY, reject=0.9)(GREY).label == "neither"
    assert Classifier(TINY)(GREY).label in ("cat", "dog")


def test_rejection_by_an_output_of_its_own() -> None:
    known = Classifier(DATA / "tiny_known.onnx")
    answers = known.batch([GREY, RED, GREY, BLUE, *[GREY] * 40])
    assert [answer.label for answer in answers] == ["neither", "cat", "neither", "dog"] + [
        "neither"
    ] * 40
    assert answers[0].confidence == pytest.approx(0.5, abs=1e-3)
    # A little colour: the class is sure enough, the other output is what decides.
    faint = frame_of(120, 128, 136)
    assert Classifier(DATA / "tiny_known.onnx", reject=0.3)(faint).label == "cat"
    assert Classifier(DATA / "tiny_known.onnx", reject=0.9)(faint).label == "neither"


@pytest.mark.parametrize(("threshold", "label"), [(0.0, "cat"), (0.5, "neither")])
def test_a_score_that_is_rounded_below_0_counts_as_0(threshold: float, label: str) -> None:
    def spoil(results: list[np.ndarray]) -> None:
        results[1][:] = -0.005

    known = Classifier(DATA / "tiny_known.onnx", "cpu")
    session = known._session
    session._session = Answering(session._session, spoil)
    outputs = session.run([session.image(RED)])
    (answer,) = to_predictions(session, outputs, Rejection("known", threshold))
    assert (answer.label, answer.score) == (label, 0.0)
    assert answer.nearness == (1.0 if label == "cat" else 0.0)


@pytest.mark.parametrize("reject", [True, -0.1, 1.1, "0.5", float("nan")])
def test_a_wrong_rejection_is_a_value_error(reject: object) -> None:
    with pytest.raises(ValueError, match="reject must be"):
        Classifier(TINY, reject=reject)  # type: ignore[arg-type]


class Answering:
    """A session whose answers are spoilt on the way."""

    def __init__(self, session: Any, spoil: Any) -> None:
        self._session, self._spoil = session, spoil

    def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        results = self._session.run(outputs, feeds)
        self._spoil(results)
        return results


def test_answers_that_are_not_numbers_are_an_error() -> None:
    for column, value in ((0, np.nan), (1, np.nan), (0, np.inf), (1, -np.inf)):

        def spoil(results: list[np.ndarray], column: int = column, value: float = value) -> None:
            results[0][-1, column] = value

        pets = Classifier(TINY, "cpu")
        pets._session._session = Answering(pets._session._session, spoil)
        several = [pets.batch, pets.probabilities]
        if value != -np.inf:  # then the largest one is a number
            several.append(pets.scores)
        with pytest.raises(ModelError, match=r"tiny\.onnx: its answers are not numbers"):
            pets(RED)
        for call in several:
            with pytest.raises(ModelError, match=r"tiny\.onnx: its answers are not numbers"):
                call([RED, BLUE])

    def spoil_known(results: list[np.ndarray]) -> None:
        results[1][:] = np.nan

    pets = Classifier(DATA / "tiny_known.onnx", "cpu")
    pets._session._session = Answering(pets._session._session, spoil_known)
    for call in (pets, lambda frame: pets.scores([frame])):
        with pytest.raises(ModelError, match="not numbers"):
            call(RED)


@pytest.mark.parametrize("value", [124.5, -3.0, 1.02])
def test_logits_are_not_taken_for_probabilities(value: float) -> None:
    def spoil(results: list[np.ndarray], value: float = value, output: int = 0) -> None:
        results[output].reshape(len(results[output]), -1)[-1, 0] = value

    pets = Classifier(TINY, "cpu")
    session = pets._session._session
    pets._session._session = Answering(session, spoil)
    for call in (pets.batch, pets.probabilities, lambda frames: pets(frames[-1])):
        with pytest.raises(ModelError, match=rf"not probabilities .* one is {value:g}; .*softmax"):
            call([RED, BLUE])
    pets._session._session = Answering(
        session, lambda results: spoil(results, 1.004)
    )  # of half floats
    assert pets(RED).label == "cat"
    known = Classifier(DATA / "tiny_known.onnx", "cpu")
    known._session._session = Answering(
        known._session._session, lambda results: spoil(results, output=1)
    )
    for call in (known.batch, known.scores):
        with pytest.raises(ModelError, match="not probabilities"):
            call([RED, RED])
