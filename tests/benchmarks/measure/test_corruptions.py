"""Spoiled frames: repeatable, of the stated strength, and the same at any size."""

from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.measure.corruptions import CORRUPTIONS, corrupt

BY_NAME = {one.name: one for one in CORRUPTIONS}


@pytest.fixture
def frame() -> np.ndarray:
    picture = np.zeros((150, 200, 3), np.uint8)
    cv2.rectangle(picture, (60, 40), (140, 110), (40, 180, 220), -1)
    cv2.circle(picture, (100, 75), 20, (200, 60, 60), -1)
    return picture


@pytest.mark.parametrize("name", BY_NAME)
def test_same_picture_same_frame_and_the_original_is_left_alone(name, frame):
    before = frame.copy()
    first = corrupt(BY_NAME[name], frame, "digest")
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.flags.c_contiguous
    assert np.array_equal(first, corrupt(BY_NAME[name], frame, "digest"))
    assert np.array_equal(frame, before)
    assert not np.array_equal(first, frame)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_smallest_frame_is_no_problem(name):
    assert corrupt(BY_NAME[name], np.full((1, 1, 3), 90, np.uint8), "x").size >= 3


def test_strengths_are_as_stated(frame):
    grey = np.full((100, 100, 3), 128, np.uint8)
    assert corrupt(BY_NAME["dark"], grey, "x").mean() == pytest.approx(128 / 5, abs=0.5)
    assert corrupt(BY_NAME["dark"], grey, "x").std() == pytest.approx(
        0.6 * np.sqrt(128 / 5), abs=0.1
    )
    assert corrupt(BY_NAME["noise"], grey, "x").std() == pytest.approx(25, abs=0.5)
    assert corrupt(BY_NAME["crop"], frame, "x").shape == (90, 120, 3)
    assert corrupt(BY_NAME["rotation"], frame, "x").shape == frame.shape
    small = corrupt(BY_NAME["small"], np.full((150, 200, 3), 90, np.uint8), "x")
    assert (small == 90).all(), "a flat picture on its own colours"
    assert corrupt(BY_NAME["small"], frame, "x").shape == frame.shape
    jpeg = corrupt(BY_NAME["jpeg"], frame, "x")
    _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 10])
    assert np.array_equal(jpeg, cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def test_blur_is_relative_to_the_size():
    def width_of_edge(size: int) -> float:
        edge = np.zeros((size, size, 3), np.uint8)
        edge[:, size // 2 :] = 255
        row = corrupt(BY_NAME["blur"], edge, "x")[size // 2, :, 0]
        return float(((row > 25) & (row < 230)).sum() / size)

    assert width_of_edge(100) == pytest.approx(width_of_edge(400), abs=0.02)


def test_pictures_differ_in_what_is_random(frame):
    crops = {corrupt(BY_NAME["crop"], frame, str(key)).tobytes() for key in range(20)}
    turns = {corrupt(BY_NAME["rotation"], frame, str(key)).tobytes() for key in range(20)}
    assert len(crops) > 10
    assert len(turns) == 2
