"""None"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

from catdog_edge.images.preprocess import preprocess, resize, to_bgr, to_layout, to_nchw
from catdog_edge.runtime.model_file import find_model, read_spec
from catdog_edge.spec import ResizeStep, crop_and_squash, squash

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour, like [cpu]")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def test_a_frame_of_the_right_size_is_not_even_copied() -> None:
    frame = noise(128, 128, 3)
    assert preprocess(frame, squash(128, 128)) is frame


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000, 3), (1000, 1, 3), (2, 3, 4), (720, 1280, 3)])
def test_any_size_and_channel_count_becomes_the_models_picture(shape: tuple[int, ...]) -> None:
    answer = preprocess(noise(*shape), squash(96, 128))
    assert answer.shape == (96, 128, 3)
    assert answer.dtype == np.uint8
    assert answer.flags.c_contiguous


def test_grey_and_alpha_mean_what_a_person_sees() -> None:
    grey = noise(20, 30)
    assert (to_bgr(grey) == grey[:, :, None]).all()
    assert (to_bgr(grey[:, :, None]) == grey[:, :, None]).all()
    bgra = noise(20, 30, 4)
    assert (to_bgr(bgra) == bgra[:, :, :3]).all()


def test_strided_frames_answer_like_contiguous_ones() -> None:
    frame = noise(300, 400, 3)
    for view in (frame[::2, ::3], frame[:, ::-1], frame[10:200, 20:220], np.asfortranarray(frame)):
        expected = preprocess(np.ascontiguousarray(view), squash(64, 64))
        assert (preprocess(view, squash(64, 64)) == expected).all()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "did the camera"),
        ([[1, 2], [3, 4]], "list"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    ],
)
def test_a_wrong_frame_says_what_came_and_what_is_wanted(frame: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        preprocess(frame, squash(8, 8))
    assert "uint8 [H,W,3] BGR" in str(caught.value)


def test_the_steps_are_the_documented_ones() -> None:
    frame = noise(700, 900, 3)
    halfway = cv2.resize(frame, (256, 256), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(halfway, (128, 128), interpolation=cv2.INTER_AREA)
    assert (preprocess(frame, squash(128, 128)) == expected).all()
    # An axis that is small already is left alone by the first step.
    flat = noise(100, 900, 3)
    halfway = cv2.resize(flat, (256, 100), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(halfway, (128, 128), interpolation=cv2.INTER_LINEAR)
    assert (preprocess(flat, squash(128, 128)) == expected).all()


def test_a_half_is_the_rounded_mean_of_four_pixels_with_either_filter() -> None:
    """On every processor, as docs/preprocessing.md has it: 128x128 of 256x256 in any language."""
    frame = noise(62, 46, 3)
    four = frame.reshape(31, 2, 23, 2, 3).astype(np.uint16).sum(axis=(1, 3))
    for how in ("linear", "area"):
        answer = resize(frame, [ResizeStep(how, 31, 23)])
        assert (answer == (four + 2) // 4).all()


def test_area_is_the_mean_of_the_footprint() -> None:
    frame = noise(4, 4, 3)
    means = frame.reshape(2, 2, 2, 2, 3).astype(float).mean(axis=(1, 3))
    answer = resize(frame, [ResizeStep("area", 2, 2)])
    assert np.abs(answer.astype(float) - means).max() <= 0.5


def test_the_rule_is_close_to_a_plain_area_filter_on_a_camera_frame() -> None:
    rng = np.random.default_rng(3)
    frame = cv2.resize(rng.integers(0, 256, (135, 240, 3), dtype=np.uint8), (1920, 1080))
    plain = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    ours = preprocess(frame, squash(128, 128)).astype(float)
    linear = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_LINEAR).astype(float)
    assert np.abs(ours - plain).mean() < 0.5 * np.abs(linear - plain).mean()


def test_the_layouts() -> None:
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    planes = to_nchw(images)
    assert (planes.shape, planes.dtype) == ((2, 3, 3, 4), np.float32)
    assert planes.flags.c_contiguous
    blue, green, red = images[1, 2, 3] / np.float32(255)
    np.testing.assert_array_equal(planes[1, :, 2, 3], [red, green, blue])
    np.testing.assert_array_equal(to_layout(images, "nchw-float"), planes)
    np.testing.assert_array_equal(to_layout(images, "nhwc-uint8"), images)


@pytest.mark.parametrize(
    ("shape", "crop", "kept"),
    [
        ((90, 160), 0.0, (90, 160)),
        ((90, 160), 0.5, (90, 120)),
        ((160, 90), 0.5, (120, 90)),
        ((90, 160), 1.0, (90, 90)),
        ((100, 100), 0.5, (100, 100)),
    ],
)
def test_a_crop_cuts_the_longer_side_about_its_centre(
    shape: tuple[int, int], crop: float, kept: tuple[int, int]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = resize(frame, [ResizeStep("linear", *kept, crop=crop)])
    top, left = (shape[0] - kept[0]) // 2, (shape[1] - kept[1]) // 2
    assert (found == frame[top : top + kept[0], left : left + kept[1]]).all()
    assert found.flags.c_contiguous


pytest.importorskip("cv2")


DOCS = ROOT / "docs" / "preprocessing.md"


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    if not DOCS.is_file():
        pytest.skip("the docs are not beside these tests")
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "shape",
    [
        (480, 640), (1080, 1920), (100, 100), (64, 64), (32, 32), (33, 40), (20, 300), (300, 20),
        (1, 1), (1, 500), (65, 63), (50, 31), (262, 26), (377, 11),
    ],
)  # fmt: skip
@pytest.mark.parametrize("second", ["linear", "area"])
@pytest.mark.parametrize("crop", [0, 0.5, 1])
def test_the_pseudocode_gives_the_same_picture(
    documented: dict[str, Any], shape: tuple[int, int], second: str, crop: float
) -> None:
    size = 32
    first, last = squash(size, size)
    first = dataclasses.replace(first, crop=crop)
    steps = (first, dataclasses.replace(last, interpolation=second))
    random = np.random.default_rng(shape[0] * 10_000 + shape[1])
    frame = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mine = preprocess(frame, steps)
    theirs = documented["model_picture"](frame, size, documented[second], crop)
    assert theirs.dtype == np.uint8
    assert theirs.shape == mine.shape == (size, size, 3)
    difference = np.abs(mine.astype(int) - theirs.astype(int))
    # OpenCV's linear step counts in fixed point, so a value near a half may round otherwise; a
    # second step can make two levels of it, seldom.
    assert difference.max() <= 2
    assert (difference == 2).mean() < 0.002


@pytest.mark.parametrize(
    ("name", "rule"), [("fast", crop_and_squash), ("accurate", crop_and_squash)]
)
def test_the_rule_of_a_shipped_model_is_one_of_the_two(name: str, rule: Any) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; install a flavour")
    spec = read_spec(find_model(name).path)
    assert spec.resize == rule(spec.height, spec.width)
