"""A prediction drawn onto an image: a strip, white text, a bar as long as the confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour, like [cpu]")


from catdog_edge.images.draw import COLOURS, GREY, colour_of, draw_prediction, overlay
from catdog_edge.spec import Prediction

LABELS = ("cat", "dog", "fox", "owl", "hen", "pig")


def prediction(index: int, confidence: float) -> Prediction:
    rest = (1 - confidence) / (len(LABELS) - 1)
    each = tuple(confidence if number == index else rest for number in range(len(LABELS)))
    return Prediction(LABELS[index], confidence, each, LABELS)


@pytest.mark.parametrize("confidence", [0.4, 0.75, 1.0])
def test_the_bar_is_as_long_as_the_confidence(confidence: float) -> None:
    drawn = draw_prediction(np.full((200, 300, 3), 180, np.uint8), prediction(1, confidence))
    coloured = (drawn[-1] == COLOURS[1]).all(axis=1)
    assert coloured.sum() == round(300 * confidence)
    assert coloured[: coloured.sum()].all()


def test_the_strip_is_a_ninth_of_the_image_and_dark() -> None:
    frame = np.full((400, 600, 3), 200, np.uint8)
    drawn = draw_prediction(frame, prediction(0, 0.9))
    strip = round(0.11 * 400)
    assert (drawn[: 400 - strip] == 200).all()
    assert (drawn[400 - strip, -20:] == 70).all()
    bar = (drawn[:, 0] == COLOURS[0]).all(axis=1).sum()
    assert 0.1 * strip < bar < 0.25 * strip


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (1080, 1920), (300, 60)])
def test_the_text_is_white_and_inside_the_strip(size: tuple[int, int]) -> None:
    drawn = draw_prediction(np.zeros((*size, 3), np.uint8), prediction(2, 0.55))
    rows, columns = np.nonzero((drawn > 200).all(axis=2))
    assert len(rows) > 20
    assert rows.min() >= size[0] - max(0.12 * min(size), 15)
    assert columns.min() > 0
    assert columns.max() < size[1] - 1  # not cut off, also where the image is narrow


def test_a_label_of_any_length_ends_before_the_margin() -> None:
    for length in range(3, 30):
        label = "W" * length
        sure = Prediction(label, 0.9, (0.9, 0.1), (label, "dog"))
        drawn = draw_prediction(np.zeros((240, 180, 3), np.uint8), sure)
        columns = np.nonzero((drawn > 100).all(axis=2))[1]
        assert columns.max() < 180 - 3, length


def test_a_heat_map_is_mixed_in_by_at_most_half() -> None:
    frame = np.full((1, 3, 3), 101, np.uint8)
    mixed = overlay(frame, np.array([[0.0, 0.25, 1.0]], np.float32))
    # JET is (255, 128, 0) at a quarter and (0, 0, 128) at 1, in BGR
    assert mixed.tolist() == [[[101, 101, 101], [140, 108, 76], [51, 51, 115]]]


def test_colours_repeat_and_neither_is_grey() -> None:
    assert colour_of(prediction(5, 0.9)) == COLOURS[0]
    assert colour_of(prediction(4, 0.9)) == COLOURS[4]
    assert len({colour_of(prediction(number, 0.9)) for number in range(5)}) == 5
    assert colour_of(Prediction("neither", 0.5, (0.5, 0.5), ("cat", "dog"))) == GREY


def test_the_box_of_a_part_is_drawn() -> None:
    part = replace(prediction(1, 0.9), box=(50, 40, 100, 60))
    drawn = draw_prediction(np.full((200, 300, 3), 180, np.uint8), part)
    for y, x in ((40, 50), (40, 149), (99, 50), (99, 149)):
        assert tuple(drawn[y, x]) == COLOURS[1]
    assert (drawn[50:90, 60:140] == 180).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (16, 16), (96, 128), (1080, 1920)])
def test_drawing_fits_any_size_and_leaves_the_frame_alone(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 180, np.uint8)
    sure = Prediction("dog", 1.0, (0.0, 1.0), ("cat", "dog"))
    drawn = draw_prediction(frame, sure)
    assert drawn.shape == frame.shape
    assert (frame == 180).all()
    assert (drawn[-1] == COLOURS[1]).all()
    half = draw_prediction(frame, Prediction("neither", 0.5, (0.5, 0.5), ("cat", "dog")))
    if size[1] > 10:
        assert (half[-1, 0] == GREY).all()
        assert not (half[-1, -1] == GREY).all()
