"""The state machine of visits, on exact sequences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


from catdog_edge.events.events import Rules
from catdog_edge.events.tracker import Tracker, Transition

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


def test_a_glimpse_long_before_a_visit_is_not_its_start() -> None:
    changes = track(lambda t: CAT if t < 0.2 or t >= 60 else (0.2, 0.0), 62)
    assert told(changes)[0] == ("enter", 0, 60)


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
    with pytest.raises(ValueError, match=r"or more|expected 0 < leave"):
        Rules(**wrong)
