"""`Events`: the schema, several sources, and videos of known content."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT, TINY

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support.cameras import clips

from catdog_edge import Camera, CameraError, Classifier, Events
from catdog_edge.camera.camera import Frame, State
from catdog_edge.events.events import SCHEMA, Event, Rules, View, state_to_json
from catdog_edge.images.preprocess import preprocess
from catdog_edge.runtime.model_file import shipped_models
from catdog_edge.spec import ModelSpec, Prediction, crop_and_squash

# Events.


class Painted:
    """Answers by what is painted: red is a cat's probability, blue a dog's, of 255."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.calls = 0

    def __call__(self, frame: np.ndarray) -> Prediction:
        self.calls += 1
        cat, dog = (float(frame[..., channel].mean()) / 255 for channel in (2, 0))
        label = "cat" if cat > 0.5 else "dog" if dog > 0.5 else "neither"
        return Prediction(label, max(cat, dog), (cat, dog), ("cat", "dog"))


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return Classifier(TINY, "cpu").spec


def frame(number: int, fps: float, cat: float, dog: float = 0.0, **changes: object) -> Frame:
    image = np.full((36, 64, 3), (round(255 * dog), 40, round(255 * cat)), np.uint8)
    start = datetime(2026, 11, 22, 15, 4, 5, 250_000, tzinfo=UTC).timestamp()
    place = number / fps
    return replace(Frame(image, number, place, start + place, 0, "door"), **changes)


def test_events_carry_what_the_schema_says(spec: ModelSpec) -> None:
    events = Events(Painted(spec))
    found: list[Event] = []
    for number in range(100):
        cat = {25: 0.99, 30: 0.97}.get(number, 0.9) if 20 <= number < 60 else 0.0
        found += events.feed(frame(number, 10, cat))
    enter, leave = found
    assert str(enter) == "2026-11-22T15:04:07Z door cat enter 0.90"
    assert str(leave) == "2026-11-22T15:04:11Z door cat exit 0.99 after 4.0 s"
    assert enter.picture[0, 0, 2] == round(0.9 * 255)
    assert leave.picture[0, 0, 2] == round(0.99 * 255), "the best frame of the whole visit"
    document = json.loads(leave.to_json())
    assert document == {
        "schema": SCHEMA,
        "event": "exit",
        "label": "cat",
        "confidence": pytest.approx(0.99, abs=0.005),
        "source": "door",
        "time": "2026-11-22T15:04:11.250Z",
        "decided": "2026-11-22T15:04:11.750Z",
        "visit": 1,
        "position": 6.0,
        "duration": 4.0,
        "reason": "left",
        "snapshot": None,
        "box": None,
    }
    first = json.loads(enter.to_json())
    assert first["time"] == "2026-11-22T15:04:07.250Z"
    assert first["duration"] is first["reason"] is None
    assert "\n" not in enter.to_json()


def test_lines_of_any_language() -> None:
    line = state_to_json("Tür", State.STALLED, "", 0.0)
    assert '"source": "Tür", "state": "stalled", "reason": null' in line
    assert '"label": "Katze ü"' in Event("enter", "Katze ü", 1.0, "Tür", 0.0, 0.0, 1).to_json()


class Unsure(Painted):
    """A cat that is surely one in bright frames alone; else `neither`, more or less near."""

    def __init__(self, spec: ModelSpec, nearness: float) -> None:
        super().__init__(spec)
        self.nearness = nearness

    def __call__(self, frame: np.ndarray) -> Prediction:
        cat = float(frame[..., 2].mean()) / 255
        label, nearness = ("cat", 1.0) if cat > 0.95 else ("neither", self.nearness)
        return Prediction(label, cat, (cat, 1 - cat), ("cat", "dog"), nearness)


@pytest.mark.parametrize(
    ("nearness", "visits"), [(0.97, [("enter", 2.0), ("exit", 6.0)]), (0.1, [])]
)
def test_a_score_just_below_the_threshold_keeps_a_pet_but_brings_none(
    spec: ModelSpec, nearness: float, visits: list[tuple[str, float]]
) -> None:
    events = Events(Unsure(spec, nearness), motion=False)
    found: list[Event] = []
    for number in range(100):
        # Four seconds of which only every fifth frame is sure, after two that never are.
        cat = (0.99 if number % 5 == 0 else 0.9) if 20 <= number < 60 else 0.9 * (number < 20)
        found += events.feed(frame(number, 10, cat))
    assert [(event.event, round(event.position, 1)) for event in found] == visits


def test_the_documentation_names_every_key(spec: ModelSpec) -> None:
    events = Events(Painted(spec))
    found = [event for n in range(20) for event in events.feed(frame(n, 10, 1.0))]
    text = (ROOT / "docs" / "stream.md").read_text()
    for key in json.loads(found[0].to_json()):
        assert f"| `{key}` |" in text, key


def test_sources_do_not_mix(spec: ModelSpec) -> None:
    events = Events(Painted(spec))
    found = []
    for number in range(60):
        found += events.feed(frame(number, 10, 0.9 if number < 40 else 0.0, source="door"))
        found += events.feed(frame(number, 10, 0.0, 0.9 if number > 20 else 0.0, source="yard"))
    assert [(e.source, e.label, e.event) for e in found] == [
        ("door", "cat", "enter"),
        ("yard", "dog", "enter"),
        ("door", "cat", "exit"),
    ]
    ends = events.finish("yard", "stopped")
    assert [(e.label, e.event, e.reason) for e in ends] == [("dog", "exit", "stopped")]
    assert events.finish("yard", "stopped") == []
    assert events.finish("unknown", "ended") == []


def test_a_camera_that_is_lost_ends_the_visit(spec: ModelSpec) -> None:
    events = Events(Painted(spec), Rules(lost=3))
    live = {"live": True}
    found = [e for n in range(20) for e in events.feed(frame(n, 10, 0.9, **live))]
    later = events.feed(frame(200, 10, 0.9, **live))
    assert [(e.event, e.reason) for e in found + later] == [("enter", None), ("exit", "lost")]
    assert later[0].duration == pytest.approx(1.9)
    assert later[0].position is None
    again = [e for n in range(201, 220) for e in events.feed(frame(n, 10, 0.9, **live))]
    assert [(e.event, e.visit) for e in again] == [("enter", 2)]


class Scripted(Camera):
    """A live camera that shows what it is told and then falls silent."""

    def __init__(self, name: str, frames: list[Frame]) -> None:
        super().__init__("rtsp://127.0.0.1:9/none", name)
        self.frames = frames

    def read(self, timeout: float | None = None) -> Frame | None:
        return self.frames.pop(0) if self.frames else None


def test_the_visit_after_an_outage_has_its_own_best_frame(spec: ModelSpec) -> None:
    events = Events(Painted(spec))
    for number in range(20):
        events.feed(frame(number, 10, 0.99, live=True))
    found: list[Event] = []
    for number in range(600, 620):
        found += events.feed(frame(number, 10, 0.7, live=True))
    lost, enter = found
    assert (lost.reason, enter.event) == ("lost", "enter")
    assert (lost.confidence, enter.confidence) == pytest.approx((0.99, 0.7), abs=0.005)
    assert enter.picture[0, 0, 2] == round(0.7 * 255)


def test_the_times_of_a_second_recording_are_its_own(spec: ModelSpec) -> None:
    events = Events(Painted(spec))
    for number in range(100):
        events.feed(frame(number, 10, 0.9))
    assert [event.position for event in events.finish("door", "ended")] == [9.9]
    found: list[Event] = []
    for number in range(50):
        found += events.feed(frame(number, 10, 0.9 if number >= 20 else 0.0))
    assert [(event.event, event.position) for event in found] == [("enter", 2.0)]


def test_a_silent_camera_is_noticed_without_a_frame(spec: ModelSpec) -> None:
    now = time.monotonic()
    frames = [frame(n, 10, 0.9, live=True, monotonic=now + n / 10 - 1.5) for n in range(15)]
    stop = threading.Event()
    found = []
    for event in Events(Painted(spec), Rules(lost=0.5)).over(Scripted("door", frames), stop=stop):
        found.append((event.event, event.reason))
        if event.event == "exit":
            stop.set()
    assert found == [("enter", None), ("exit", "lost")]


def test_every_frame_is_shown_with_what_is_seen_in_it(spec: ModelSpec) -> None:
    class Ending(Scripted):
        def read(self, timeout: float | None = None) -> Frame | None:
            self.ended = not self.frames
            return super().read(timeout)

    shown: list[tuple[int, str]] = []

    def each(taken: Frame, view: View) -> None:
        shown.append((taken.index, view.present))

    camera = Ending("door", [frame(n, 10, cat=0.9) for n in range(20)])
    assert len(list(Events(Painted(spec)).over(camera, each=each))) == 2
    assert [index for index, _ in shown] == list(range(20))
    assert (shown[0][1], shown[-1][1]) == ("neither", "cat")


@pytest.mark.parametrize("focus", ["motion", "frame", "none"])
def test_a_model_that_crops_to_another_shape_gets_the_frame_once_cropped(
    spec: ModelSpec, focus: Any
) -> None:
    one = frame(0, 10, 0.9)
    wide = replace(spec, height=32, width=64, resize=crop_and_squash(32, 64), layout="nchw-float")
    given: list[np.ndarray] = []

    class Model(Painted):
        def __call__(self, image: np.ndarray) -> Prediction:
            given.append(preprocess(image, wide.resize))
            return super().__call__(image)

    one.image[:, :20] = 0
    Events(Model(wide), focus=focus).feed(one)
    assert np.array_equal(given[0], preprocess(one.image, wide.resize))


def test_names_must_differ(tmp_path: Path, spec: ModelSpec) -> None:
    clip = clips.write(iter([clips.drawing("cat", 0)] * 3), tmp_path / "a.avi", 10)
    with pytest.raises(CameraError, match="two sources are called a"):
        list(Events(Painted(spec)).over([Camera(clip), Camera(clip)]))


def test_one_broken_source_does_not_stop_the_others(tmp_path: Path, spec: ModelSpec) -> None:
    clip = clips.write(iter([clips.drawing("cat", 0)] * 20), tmp_path / "a.avi", 10)
    broken = tmp_path / "b.avi"
    broken.write_bytes(b"nothing")
    found = []
    events = Events(Painted(spec)).over([Camera(broken), Camera(clip)])
    with pytest.raises(CameraError, match=r"b\.avi"):  # noqa: PT012 - it comes after the events
        for event in events:
            found.append((event.source, event.event, event.reason))
    assert found == [("a", "enter", None), ("a", "exit", "ended")]


# The motion gate.


# Videos of known content.


def watch(path: Path, model: object, **options: Any) -> tuple[list[Event], Events]:
    events = Events(model, **options)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with Camera(path, name="clip", start=start) as camera:
        return list(events.over(camera)), events


def as_true(found: list[Event], near: float = 0.5) -> list[tuple[str, str, float]]:
    """The events with the true moment in place of theirs, where that is near."""
    moments = [true for _event, _label, true in clips.TRUTH]
    return [
        (e.event, e.label, next((m for m in moments if abs(m - e.position) <= near), e.position))
        for e in found
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool, float, bool], Path]:
    folder = tmp_path_factory.mktemp("drawn")
    kinds = ("cat", "street", "dog", "street")
    pictures = [cv2.resize(clips.drawing(kind, n), (320, 180)) for n, kind in enumerate(kinds)]

    def made(pan: bool, fps: float, dark: bool) -> Path:
        path = folder / f"{pan}-{fps}-{dark}.avi"
        if not path.exists():
            clips.write(clips.four_scenes(pictures, fps, pan=pan, dark=dark), path, fps)
        return path

    return made


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["day", "dark"])
@pytest.mark.parametrize("fps", [10.0, 25.0])
@pytest.mark.parametrize("pan", [False, True], ids=["cut", "pan"])
def test_a_drawn_video_gives_exactly_its_events(
    drawn: Callable[[bool, float, bool], Path], pan: bool, fps: float, dark: bool
) -> None:
    path = drawn(pan, fps, dark)
    # The toy model is as sure as there is red or blue: these are its answers to one half.
    model = Classifier(TINY, "cpu", reject=0.8 if dark else 0.996)
    closer, _events = watch(path, model)
    assert as_true(closer) == clips.TRUTH
    assert [e.to_json() for e in closer] == [e.to_json() for e in watch(path, model)[0]]
    found, events = watch(path, model, focus="frame")
    assert as_true(found) == clips.TRUTH
    every, all_events = watch(path, model, motion=False)
    assert [(e.event, e.label) for e in every] == [(e.event, e.label) for e in found]
    assert all(abs(a.wall - b.wall) <= 1.5 / fps for a, b in zip(every, found, strict=True))
    assert all_events.tally("clip").classified == all_events.tally("clip").frames == 16 * fps
    assert events.tally("clip").classified < 16 * fps * (0.7 if pan else 0.3)


def test_a_still_video_asks_twenty_times_less_often_with_the_same_events(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    picture = cv2.resize(clips.drawing("cat", 4), (320, 180)).astype(np.float32)
    still = (
        (picture + random.normal(0, 3, (180, 320, 1))).clip(0, 255).astype(np.uint8)
        for _ in range(300)
    )
    path = clips.write(still, tmp_path / "still.avi", 15)
    model = Classifier(TINY, "cpu", reject=0.8)
    gated, few = watch(path, model)
    every, all_events = watch(path, model, motion=False)
    assert [(e.event, e.label, e.time, e.reason) for e in gated] == [
        (e.event, e.label, e.time, e.reason) for e in every
    ]
    assert len(gated) == 2
    assert few.tally("clip").classified * 20 <= all_events.tally("clip").classified


def rejecting_model() -> Classifier:
    """A shipped model that can answer `neither`: by its spec, or by a threshold of ours."""
    if not shipped_models():
        pytest.skip("no model is shipped")
    models = [Classifier(name, "cpu") for name in shipped_models()]
    able = [model for model in models if model.reject is not None]
    return able[0] if able else Classifier(None, "cpu", reject=0.95)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["day", "dark"])
@pytest.mark.parametrize("fps", [10.0, 25.0])
@pytest.mark.parametrize("pan", [False, True], ids=["cut", "pan"])
def test_a_video_of_photographs_gives_exactly_its_events(
    shared_data: Path, tmp_path: Path, pan: bool, fps: float, dark: bool
) -> None:
    """With the first photographs that the model itself answers rightly: events are tested."""
    model = rejecting_model()

    def right(kind: str, number: int) -> np.ndarray:
        wanted = "neither" if kind == "street" else kind
        good = (
            picture
            for picture in clips.photographs(kind, 30)
            if all(
                model(clips.as_seen(picture, np.random.default_rng(seed), night)).label == wanted
                for night in (False, True)
                for seed in range(8)
            )
        )
        return next(itertools.islice(good, number, None))

    pictures = [right("cat", 0), right("street", 0), right("dog", 0), right("street", 1)]
    frames = clips.four_scenes(pictures, fps, pan=pan, dark=dark)
    path = clips.write(frames, tmp_path / "clip.avi", fps)
    found, _events = watch(path, model)
    assert as_true(found) == clips.TRUTH
