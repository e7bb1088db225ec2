"""A file of another program, run as its own code does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="importing needs torch; install [train]")
pytest.importorskip("onnx", reason="importing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.foreign_classifiers import FRAMES, MEAN, SIZE, STD, network, theirs

from catdog_edge.errors import ModelError
from exporters.checks.foreign_predictor import (
    ForeignPredictor,
    PixelScaling,
    find_ending,
    to_probabilities,
)
from exporters.graph.foreign_network import ForeignInput


def foreign(file: Path, ending: str = "logits", batch: int | None = None, size: int = SIZE):
    source = ForeignInput("frames", "nchw-float", size, size, batch)
    made = ForeignPredictor(file, source, PixelScaling(False, 255.0, MEAN, STD))
    made.output, made.ending = ("logits" if ending == "logits" else "answers"), ending
    return made


@pytest.mark.parametrize("batch", [None, 4])
def test_any_number_of_images_is_answered(tmp_path: Path, batch: int | None) -> None:
    wanted = theirs(network(tmp_path / "free.onnx"), "nchw-float")
    file = network(tmp_path / "theirs.onnx", batch=batch or "batch")
    found = foreign(file, batch=batch).predict(np.concatenate([FRAMES] * 3))
    assert np.abs(found.probabilities - np.concatenate([wanted] * 3)).max() < 1e-5
    assert np.abs(to_probabilities(found.logits, "logits") - found.probabilities).max() == 0
    assert found.known is None


def test_probabilities_are_no_logits(tmp_path: Path) -> None:
    file = network(tmp_path / "theirs.onnx", end="Softmax")
    found = foreign(file, "probabilities").predict(FRAMES)
    assert np.abs(found.probabilities - theirs(file, "nchw-float")).max() < 1e-5
    assert found.logits is None


def test_a_file_that_does_not_run_on_images_is_named(tmp_path: Path) -> None:
    file = network(tmp_path / "theirs.onnx", batch=1)
    with pytest.raises(ModelError, match=r"theirs\.onnx: it does not run on 1 image of 8x8 \("):
        foreign(file, batch=1, size=8).outputs(FRAMES[:, :8, :8])
    with pytest.raises(ModelError, match="does not run on 6 images of 32x32"):
        foreign(file).outputs(FRAMES)


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], "probabilities"),
        ([[0.25, 0.7509], [1.0, -5e-7]], "probabilities"),
        ([[0.25, 0.7515]], "logits"),
        ([[1.00001, -1e-5]], "logits"),
        ([[2.0, -1.0]], "logits"),
    ],
)
def test_what_comes_out_is_told_by_answers(values: list, ending: str) -> None:
    assert find_ending(np.float32(values), sigmoid=False) == ending


def test_of_one_value_a_sigmoid_tells() -> None:
    assert find_ending(np.float32([[0.5]]), sigmoid=False) == "one logit"
    assert find_ending(np.float32([[0.5]]), sigmoid=True) == "one probability"


@pytest.mark.parametrize(
    ("ending", "values", "second"),
    [
        ("one probability", [0.0, 0.25, 1.0], [0.0, 0.25, 1.0]),
        ("one logit", [-1.0, 0.5, 0.0], [0.26894, 0.62246, 0.5]),
        ("one logit", [1.0, 0.5, 0.0], [0.73106, 0.62246, 0.5]),
    ],
)
def test_one_value_is_the_second_of_two_classes(ending: str, values: list, second: list) -> None:
    found = to_probabilities(np.float32(values)[:, None], ending)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack([1 - np.array(second), second], 1), abs=1e-5)
