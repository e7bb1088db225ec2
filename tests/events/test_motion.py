"""The motion gate: what it asks the model about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


from support.cameras import clips
from support.cameras.clips import RED, yard

from catdog_edge.events.motion import MotionGate


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


def test_the_gate_says_where_it_moved() -> None:
    def moved(*frames: np.ndarray) -> tuple[float, float, float, float] | None:
        gate = MotionGate()
        for number, image in enumerate(frames):
            gate.must_classify(cv2.resize(image, (64, 64)), number / 10)
        return gate.moved

    assert moved(yard(None)) is None
    assert moved(yard(None), yard(None)) is None
    left, top, right, bottom = moved(yard(None), yard(160))
    assert (left, right) == (pytest.approx(0.5, abs=0.04), pytest.approx(0.65, abs=0.04))
    assert (top, bottom) == (pytest.approx(100 / 180, abs=0.04), pytest.approx(148 / 180, abs=0.04))
    speck = yard(160)
    speck[:30, :20] = RED
    assert moved(yard(None), speck) == (left, top, right, bottom), "the larger of two"
    assert moved(yard(None), (yard(None) * 1.5).astype(np.uint8)) is None, "light"
