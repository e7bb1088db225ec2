"""`Classifier.search`: small pets in wide frames, with toy models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.paths import DATA

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, Prediction
from catdog_edge.runtime.tiled_search import best_part, tiles

RED, BLUE = (0, 0, 255), (255, 0, 0)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (1280, 720), (500, 500), (97, 4001)])
def test_squares_cover_the_frame_twice_and_overlap_by_half(height: int, width: int) -> None:
    found = tiles(height, width, 32)
    sides = sorted({side for _left, _top, side, _same in found})
    assert sides == sorted({min(height, width), min(height, width) // 2} - {max(height, width)})
    for side in sides:
        lefts = sorted({box[0] for box in found if box[2] == side})
        tops = sorted({box[1] for box in found if box[2] == side})
        assert len(lefts) * len(tops) == sum(box[2] == side for box in found)
        for starts, length in ((lefts, width), (tops, height)):
            assert (starts[0], starts[-1] + side) == (0, length)
            assert all(b - a <= side / 2 + 1 for a, b in itertools.pairwise(starts))


def test_no_square_is_smaller_than_the_models_input() -> None:
    assert len(tiles(720, 1280, 240)) == 24
    assert {box[2] for box in tiles(300, 600, 192)} == {300, 192}
    assert {box[2] for box in tiles(256, 600, 240)} == {256}, "240 would be nearly the same again"
    assert tiles(200, 600, 240) == []
    assert tiles(240, 240, 240) == []
    assert tiles(1, 1, 32) == []


def street(height: int = 120, width: int = 240) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def pets() -> Classifier:
    return Classifier(DATA / "tiny_known.onnx", "cpu")


def test_a_small_pet_is_found_and_its_box_shows_it(pets: Classifier) -> None:
    frame = street()
    frame[60:100, 180:220] = RED
    assert pets(frame).label == "neither"
    found = pets.search(frame)
    assert found.label == "cat"
    left, top, width, height = found.box
    assert (width, height) == (60, 60)
    assert left <= 180 < 220 <= left + width
    assert top <= 60 < 100 <= top + height
    assert f'"box": [{left}, {top}, 60, 60]' in found.to_json()
    assert pets.search(frame[..., 2]).label == "neither", "a grey frame is none of the toy's pets"


def test_without_a_pet_it_is_the_answer_for_the_whole_frame(pets: Classifier) -> None:
    assert pets.search(street()) == pets(street())
    assert pets.search(street(20, 30)) == pets(street(20, 30)), "smaller than the model's input"
    full = np.full((120, 240, 3), RED, np.uint8)
    assert pets.search(full) == pets(full), "as sure as any square of it"


def test_what_is_no_frame_is_a_value_error(pets: Classifier) -> None:
    with pytest.raises(ValueError, match="a frame is a NumPy array"):
        pets.search(None)


def answer(label: str, score: float) -> Prediction:
    cat = 0.1 if label == "dog" else 0.9
    return Prediction(label, 0.9, (cat, 1 - cat), ("cat", "dog"), 1.0, score, 0.5)


FRAME, LEFT, MIDDLE, RIGHT = (0, 0, 200, 100), (0, 0, 100, 100), (50, 0, 100, 100), (100, 0, 99, 99)


@pytest.mark.parametrize(
    ("answers", "wanted", "box"),
    [
        (("neither 0.1", "cat 0.9", "neither 0.4", "cat 0.9"), "neither", None),
        (("neither 0.1", "cat 0.9", "cat 0.6", "neither 0.1"), "cat", LEFT),
        (("neither 0.1", "cat 0.9", "dog 0.6", "dog 0.7"), "dog", RIGHT),
        (("cat 0.7", "dog 0.9", "cat 0.8", "neither 0.1"), "cat", MIDDLE),
        (("cat 0.7", "dog 0.9", "neither 0.1", "neither 0.1"), "cat", None),
    ],
)
def test_one_square_alone_is_not_believed(
    answers: tuple[str, ...], wanted: str, box: tuple[int, ...] | None
) -> None:
    predictions = [answer(label, float(score)) for label, score in map(str.split, answers)]
    best = best_part(predictions, [FRAME, LEFT, MIDDLE, RIGHT])
    assert (best.label, best.box) == (wanted, box)


def test_a_model_that_never_answers_neither_gives_its_surest_square() -> None:
    frame = street()
    frame[60:, 180:] = BLUE
    found = Classifier(DATA / "tiny.onnx", "cpu").search(frame)
    assert (found.label, found.box) == ("dog", (180, 60, 60, 60))
