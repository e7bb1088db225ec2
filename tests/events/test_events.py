"""`Events`: the state machine on exact sequences, the motion gate, and videos of known content."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT, TINY

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support import clips

from catdog_edge import Camera, CameraError, Classifier, Events
from catdog_edge.camera.camera import Frame, State
from catdog_edge.events.events import SCHEMA, Event, Rules, View, state_to_json
from catdog_edge.events.motion import MotionGate
from catdog_edge.events.tracker import Tracker, Transition
from catdog_edge.runtime.model_file import shipped_models
from catdog_edge.spec import ModelSpec, Prediction

CAT, DOG, NONE = (0.95, 0.05), (0.05, 0.95), (0.0, 0.0)

Scene = Callable[[float], tuple[float, float]]


def track(
    scene: Scene, seconds: float, fps: float = 20, rules: Rules | None = None, *, end: bool = True
) -> list[Transition]:
    tracker = Tracker(2, rules or Rules())
    found = []
    for number in range(round(seconds * fps)):
        found += tracker.update(number / fps, scene(number / fps))
    return found + (tracker.finish("ended") if end else [])


def told(changes: list[Transition]) -> list[tuple[str, int, float]]:
    return [(change.kind, change.label, round(change.time, 6)) for change in changes]


# The state machine.


def test_a_visit() -> None:
    changes = track(lambda t: CAT if 2 <= t < 5 else NONE, 8)
    assert told(changes) == [("enter", 0, 2.0), ("exit", 0, 5.0)]
    assert changes[1].reason == "left"
    assert changes[1].began == 2.0


def test_nothing_happens_where_there_is_nothing() -> None:
    assert track(lambda t: NONE, 10) == []
    assert track(lambda t: (0.3, 0.3), 10) == []


@pytest.mark.parametrize("fps", [4, 7.5, 15, 30, 60])
def test_the_frame_rate_does_not_matter(fps: float) -> None:
    def scene(t: float) -> tuple[float, float]:
        return CAT if 1 <= t < 4 else DOG if 6 <= t < 7.2 else NONE

    changes = told(track(scene, 9, fps))
    wanted = [("enter", 0, 1.0), ("exit", 0, 4.0), ("enter", 1, 6.0), ("exit", 1, 7.2)]
    assert [change[:2] for change in changes] == [change[:2] for change in wanted]
    for got, true in zip(changes, wanted, strict=True):
        assert 0 <= got[2] - true[2] <= 1 / fps + 1e-6


def test_when_an_event_becomes_certain_does_not_depend_on_the_frame_rate() -> None:
    certain = []
    for fps in (10, 20, 40):
        tracker = Tracker(2, Rules())
        for number in itertools.count():
            if tracker.update(number / fps, CAT):
                certain.append(number / fps)
                break
    # 0.3 s * ln(1 / (1 - 0.6 / 0.95)) is when the average reaches 0.6.
    assert all(0.299 <= when <= 0.4 for when in certain)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.25])
def test_a_glimpse_is_no_visit(length: float) -> None:
    assert track(lambda t: CAT if 2 <= t < 2 + length else NONE, 8) == []


def test_a_pet_that_looks_away_has_not_left() -> None:
    def scene(t: float) -> tuple[float, float]:
        return CAT if 1 <= t < 6 and not 3 <= t < 3.3 else NONE

    assert told(track(scene, 9)) == [("enter", 0, 1.0), ("exit", 0, 6.0)]


def test_answers_that_waver_between_the_thresholds_do_not_flicker() -> None:
    def scene(t: float) -> tuple[float, float]:
        value = 0.55 + 0.1 * math.sin(9 * t)
        return (0.95, 0.05) if t < 1 else (value, 1 - value - 0.2)

    assert told(track(scene, 10)) == [("enter", 0, 0.0), ("exit", 0, pytest.approx(9.95))]


def test_one_pet_takes_the_place_of_another() -> None:
    changes = track(lambda t: CAT if t < 3 else DOG, 6)
    assert told(changes)[:3] == [("enter", 0, 0.0), ("exit", 0, 3.0), ("enter", 1, 3.0)]
    assert changes[1].reason == "changed"
    assert changes[3].reason == "ended"


def test_a_pet_that_is_taken_for_another_for_a_moment_has_not_changed() -> None:
    changes = track(lambda t: DOG if 3 <= t < 3.2 else CAT, 6)
    assert told(changes) == [("enter", 0, 0.0), ("exit", 0, pytest.approx(5.95))]


def test_visits_never_overlap_and_always_end() -> None:
    random = np.random.default_rng(3)
    seen = 0
    for _ in range(200):
        stays = random.exponential(random.choice([0.1, 0.6, 3.0]), 40).cumsum()
        kinds = random.integers(0, 3, 41)
        noise = random.uniform(0, 0.5)
        fps = float(random.choice([5, 15, 30]))

        def scene(t: float, stays=stays, kinds=kinds, noise=noise) -> tuple[float, float]:
            base = np.array([CAT, DOG, NONE][kinds[np.searchsorted(stays, t)]])
            cat, dog = (base + random.normal(0, noise, 2)).clip(0, 1)
            return float(cat), float(dog)

        changes = track(scene, min(60.0, stays[-1]), fps)
        seen += len(changes)
        assert [c.kind for c in changes] == ["enter", "exit"] * (len(changes) // 2)
        times = [c.time for c in changes]
        assert times == sorted(times)
        for entered, left in zip(changes[::2], changes[1::2], strict=True):
            assert entered.label == left.label
            assert left.began == entered.time
    assert seen > 500


def test_without_smoothing_every_frame_counts() -> None:
    rules = Rules(smoothing=0, minimum=0, absence=0)
    changes = track(lambda t: CAT if 1 <= t < 1.05 else NONE, 3, 20, rules)
    assert told(changes) == [("enter", 0, 1.0), ("exit", 0, pytest.approx(1.05))]


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing": -1},
        {"minimum": math.nan},
        {"absence": math.inf},
        {"lost": -0.1},
        {"enter": 0.3, "leave": 0.5},
        {"enter": 1.2},
        {"leave": 0},
    ],
)
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"or more|wanted 0 < leave"):
        Rules(**wrong)


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


def scene(moving: bool, seconds: float = 60, fps: float = 15, noise: float = 3.0) -> Iterator:
    """A street at the model's size, with a pet's picture in it from 20 s to 40 s if moving."""
    random = np.random.default_rng(1)
    street = cv2.resize(clips.photographs("street", 1)[0], (128, 128))
    cat = cv2.resize(clips.photographs("cat", 1)[0], (24, 24))
    for number in range(round(seconds * fps)):
        at = number / fps
        picture = street.astype(np.float32)
        if moving and 20 <= at < 40:
            left = int(20 + 4 * (at - 20))
            picture[60:84, left : left + 24] = cat
        picture = picture + random.normal(0, noise, picture.shape)
        yield at, picture.clip(0, 255).astype(np.uint8)


def asked(frames: Iterator, light: Callable[[float], tuple[float, float]] | None = None) -> list:
    gate = MotionGate()
    found = []
    for at, picture in frames:
        if light is not None:
            gain, offset = light(at)
            picture = (picture * gain + offset).clip(0, 255).astype(np.uint8)
        if gate.must_classify(picture, at):
            found.append(at)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0, 12.0])
@pytest.mark.parametrize("fps", [5, 15, 30])
def test_a_still_scene_is_asked_about_twenty_times_less(noise: float, fps: float) -> None:
    found = asked(scene(False, 60, fps, noise))
    assert found[0] == 0
    assert len(found) <= 60 * fps / 20


def test_what_moves_is_asked_about() -> None:
    found = asked(scene(True))
    moving = [at for at in found if 20 <= at < 40.5]
    assert min(moving) <= 20.0 + 1 / 15, "the first frame with the pet"
    assert max(np.diff(moving)) < 0.6, "and on, as long as it goes on"
    assert any(40 <= at < 40.1 for at in found), "and when it is gone"
    assert len([at for at in found if at < 20 or at > 41]) <= 39 * 15 / 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "light",
    [
        lambda t: (1.0 - 0.2 * min(1.0, t / 5), 0.0),
        lambda t: (1.0, 10 * math.sin(t)),
        lambda t: (0.85 if t % 10 > 5 else 1.0, 6.0),
    ],
    ids=["dusk", "clouds", "exposure"],
)
def test_light_is_no_movement(light: Callable[[float], tuple[float, float]]) -> None:
    assert len(asked(scene(False), light)) <= 60 * 15 / 20


@pytest.mark.slow
def test_a_lamp_that_is_switched_on_is_asked_about() -> None:
    found = asked(scene(False, noise=2.0), lambda t: (0.15, 0) if t < 30 else (1.0, 0))
    assert any(30 <= at < 30.1 for at in found)


def test_a_hard_cut_is_asked_about_at_once() -> None:
    one, other = (cv2.resize(clips.photographs(k, 1)[0], (128, 128)) for k in ("street", "dog"))
    gate = MotionGate()
    found = [n for n in range(200) if gate.must_classify(one if n < 100 else other, n / 15)]
    assert 100 in found


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
