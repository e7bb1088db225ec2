"""`Events(focus=...)`: a square around the movement is classified beside the whole frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import DATA

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support.cameras.clips import HEIGHT, RED, WIDTH, yard

from catdog_edge import Classifier, Events
from catdog_edge.camera.camera import Frame
from catdog_edge.events.events import Event, View
from catdog_edge.events.motion import MotionCrop
from catdog_edge.events.sinks import Snapshots
from catdog_edge.events.video import draw_overlay
from catdog_edge.spec import NEITHER, Prediction


@pytest.fixture(scope="module")
def pets() -> Classifier:
    return Classifier(DATA / "tiny_known.onnx", "cpu")


def shots(lefts: list[int | None], fps: float = 10) -> list[Frame]:
    return [
        Frame(yard(left), number, number / fps, number / fps, 0, "yard")
        for number, left in enumerate(lefts)
    ]


VISIT: list[int | None] = [
    *[None] * 20,
    *range(0, 160, 8),
    *[160] * 120,  # at rest for longer than the gate waits
    *range(160, 320, 8),
    *[None] * 20,
]


def watch(model: Any, lefts: list[int | None], **options: Any) -> tuple[list[Event], list[View]]:
    events = Events(model, **options)
    found, views = [], []
    for shot in shots(lefts):
        found += events.feed(shot)
        views.append(events._view)
    return found + events.finish("yard", "ended"), views


def test_a_small_pet_comes_rests_and_leaves(pets: Classifier) -> None:
    assert watch(pets, VISIT, focus="frame")[0] == []
    found, views = watch(pets, VISIT)
    assert [(event.event, event.label) for event in found] == [("enter", "cat"), ("exit", "cat")]
    assert found[0].wall == pytest.approx(2.0, abs=0.5)
    assert found[1].wall == pytest.approx(17.6, abs=0.5)
    assert found[1].reason == "left"
    rest = views[140].prediction
    left, top, width, height = rest.box
    assert width == height
    assert 48 <= width < HEIGHT / 2
    assert left <= 160 <= 208 <= left + width
    assert top <= 100 <= 148 <= top + height


def test_an_event_tells_its_box_and_the_snapshot_shows_it(pets: Classifier, tmp_path: Path) -> None:
    enter = watch(pets, VISIT)[0][0]
    left, top, width, height = enter.box
    assert json.loads(enter.to_json())["box"] == [left, top, width, height]
    assert (enter.picture[top, left : left + width] == 128).all(), "the picture is as it was"
    saved = cv2.imread(Snapshots(tmp_path, 1_000_000).write(enter))
    assert (saved[top, left : left + width] > 180).all()
    assert abs(saved[5, 5].astype(int) - 128).max() < 10


def test_a_large_pet_is_seen_in_the_whole_frame(pets: Classifier) -> None:
    events, found = Events(pets), []
    for number in range(20):
        image = np.full((HEIGHT, WIDTH, 3), RED if number > 5 else (128, 128, 128), np.uint8)
        found += events.feed(Frame(image, number, number / 10, number / 10, 0, "yard"))
    assert [(event.label, event.box) for event in found] == [("cat", None)]


class Counting:
    """Counts calls and the images of each; answers as `pets` does."""

    def __init__(self, pets: Classifier, *, batch: bool) -> None:
        self.spec, self.pets, self.calls = pets.spec, pets, []
        if batch:
            self.batch = lambda images: self._answer(list(images))

    def __call__(self, image: np.ndarray) -> Prediction:
        return self._answer([image])[0]

    def _answer(self, images: list[np.ndarray]) -> list[Prediction]:
        self.calls.append(len(images))
        return self.pets.batch(images)


def test_it_is_one_batch_of_two_where_something_moves(pets: Classifier) -> None:
    model = Counting(pets, batch=True)
    found, views = watch(model, VISIT)
    assert set(model.calls) == {1, 2}
    assert model.calls[0] == 1, "nothing has moved yet"
    assert len(model.calls) == sum(view.classified for view in views)
    single = Counting(pets, batch=False)
    assert watch(single, VISIT)[0] == found, "a model without batch() is called twice"
    assert set(single.calls) == {1}
    frame = Counting(pets, batch=True)
    watch(frame, VISIT, focus="frame")
    assert set(frame.calls) == {1}


def test_none_classifies_every_frame(pets: Classifier) -> None:
    for options in ({"focus": "none"}, {"motion": False}):
        model = Counting(pets, batch=True)
        watch(model, VISIT, **options)
        assert model.calls == [1] * len(VISIT)
    with pytest.raises(ValueError, match="focus must be motion, frame or none, got 'cats'"):
        Events(pets, focus="cats")  # type: ignore[arg-type]


def test_the_square_follows_and_stays() -> None:
    crop = MotionCrop(64)
    assert crop.follow(360, 640, None, None) is None
    small = (0.5, 0.5, 0.55, 0.6)
    box = crop.follow(360, 640, small, None)
    assert box[2:] == (64, 64), "not smaller than the model's input"
    assert crop.follow(360, 640, None, None) == box, "where the movement ends, it stays"
    wide = crop.follow(360, 640, (0.4, 0.3, 0.6, 0.7), None)
    assert wide == (234, 94, 173, 173)
    seen = Prediction("cat", 0.9, (0.9, 0.1), ("cat", "dog"), box=wide)
    assert crop.follow(360, 640, small, seen) == wide, "a tail that wags"
    assert crop.follow(360, 640, (0.7, 0.5, 0.8, 0.6), seen) != wide, "it walks on"
    assert crop.follow(360, 640, small, None)[2:] == (64, 64), "nobody is seen in it"
    assert crop.follow(360, 640, (0, 0, 1, 1), None) == (140, 0, 360, 360)
    assert crop.follow(360, 640, (0.95, 0.9, 1, 1), None) == (640 - 64, 360 - 64, 64, 64)
    corner = crop.follow(360, 640, (0, 0, 0.25, 0.5), None)
    seen = Prediction("cat", 0.9, (0.9, 0.1), ("cat", "dog"), box=corner)
    assert crop.follow(360, 640, (0, 0, 0.05, 0.1), seen) == corner, "up to the edges of the frame"
    assert MotionCrop(64).follow(48, 640, (0, 0, 1, 1), None) is None, "smaller than the input"
    assert MotionCrop(64).follow(64, 64, (0, 0, 1, 1), None) is None, "the whole frame"


def test_the_square_follows_the_size_of_the_frames() -> None:
    crop = MotionCrop(64)
    assert crop.follow(1080, 1920, (0.6, 0.5, 0.75, 0.75), None) == (1123, 502, 346, 346)
    assert crop.follow(360, 640, None, None) == (374, 168, 115, 115), "no movement, a third"
    assert crop.follow(60, 80, None, None) is None, "smaller than the input"
    assert crop.follow(1080, 1920, None, None) == (1123, 502, 346, 346)


def test_a_pet_at_rest_stays_where_the_frames_become_smaller(pets: Classifier) -> None:
    """The gate compares at the model's size: that the frames are smaller is no movement to it."""
    events, found, views = Events(pets), [], []
    # It comes to rest, in the lower right corner; then the two sizes of frames alternate.
    lefts = [*[None] * 20, *range(112, 272, 8), *[272] * 80]
    for number, left in enumerate(lefts):
        image = yard(left, top=132)
        if number <= 60 or number // 10 % 2 == 0:
            image = cv2.resize(image, (2 * WIDTH, 2 * HEIGHT))
        found += events.feed(Frame(image, number, number / 10, number / 10, 0, "yard"))
        views.append(events._view)
        box = views[-1].prediction.box
        if box is not None:
            assert box[0] + box[2] <= image.shape[1], number
            assert box[1] + box[3] <= image.shape[0], number
    assert [(event.event, event.label) for event in found] == [("enter", "cat")]
    assert all(views[number].classified for number in (70, 80, 90)), "a box of another size"
    assert not views[89].classified


def test_the_view_of_each_frame_agrees_with_the_events_so_far(pets: Classifier) -> None:
    grey, blue = (128, 128, 128), (255, 0, 0)
    plain = [np.full((HEIGHT, WIDTH, 3), c, np.uint8) for c in (grey, RED, blue, grey)]
    images = [yard(left) for left in VISIT] + [image for image in plain for _ in range(20)]
    events, present, told, differ = Events(pets), NEITHER, [], 0
    for number, image in enumerate(images):
        shot = Frame(image, number, number / 10, number / 10, 0, "yard")
        for event in events.feed(shot):
            present = event.label if event.event == "enter" else NEITHER
            told.append((event.event, event.label))
        view = events._view
        assert view.present == present, number
        differ += view.prediction.label != present
    visits = ("cat", "cat", "dog")
    assert told == [(event, label) for label in visits for event in ("enter", "exit")]
    assert differ > 6, "until an event is decided the answer of a frame is another"


def test_the_header_shows_who_is_present_and_below_the_answer() -> None:
    seen = Prediction("cat", 0.9, (0.9, 0.1), ("cat", "dog"), score=0.9, threshold=0.5)
    unsure = Prediction(NEITHER, 1.0, (1.0, 0.0), ("cat", "dog"), score=0.4, threshold=0.5)
    shot = shots([None])[0]
    same, other, gone = (
        draw_overlay(shot, View(prediction, True, present, (0.9, 0.0)))
        for prediction, present in ((seen, "cat"), (unsure, "cat"), (seen, NEITHER))
    )
    line = round(28 * 0.36) + 2
    assert (same[:line] == other[:line]).all()
    assert (same[line : 2 * line] != other[line : 2 * line]).any()
    inside = slice(8, -8)  # of the border, whose colour is that of who is present
    assert (same[8:line, inside] != gone[8:line, inside]).any()
    assert (same[line : 2 * line, inside] == gone[line : 2 * line, inside]).all()


def test_the_best_frame_of_a_visit_is_never_neither(pets: Classifier) -> None:
    class Wavering:
        spec = pets.spec

        def __call__(self, image: np.ndarray) -> Prediction:
            sure = int(image[0, 0, 0]) < 100
            values = (0.9, 0.1) if sure else (1.0, 0.0)
            near = 1.0 if sure else 0.99
            return Prediction("cat" if sure else NEITHER, values[0], values, ("cat", "dog"), near)

    events, found = Events(Wavering(), motion=False), []
    for number in range(40):
        image = np.full((HEIGHT, WIDTH, 3), 50 if number % 4 else 200, np.uint8)
        found += events.feed(Frame(image, number, number / 10, number / 10, 0, "yard"))
    found += events.finish("yard", "ended")
    assert [event.confidence for event in found] == [0.9, 0.9]
    assert found[1].picture[0, 0, 0] == 50
