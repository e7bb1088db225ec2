"""Tiled search: choose the squares of a frame to classify, and the prediction to return."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from catdog_edge.spec import NEITHER, Box, Prediction

OVERLAP = 0.25
"""Share of the smaller of two parts that lies in the other, from which they may agree."""


def tiles(height: int, width: int, least: int) -> list[Box]:
    """Return overlapping squares that cover a frame, at two scales.

    The sides are the frame's short side and half of it; neighbours overlap by half or more.
    Squares smaller than `least`, the longer side of the model's input, would only be enlarged:
    the half is then replaced by the model's input, or omitted if that is nearly the short side.
    """
    short = min(height, width)
    half = max(short // 2, least)
    sides = [side for side, most in ((short, short), (half, 0.75 * short)) if least <= side <= most]
    return [
        (left, top, side, side)
        for side in sides
        if side < max(height, width)
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    """Return evenly spaced starts of intervals that cover a length and overlap by half or more."""
    steps = -(-2 * (length - side) // side)
    return [round(step * (length - side) / steps) for step in range(steps + 1)] if steps else [0]


def best_part(predictions: Sequence[Prediction], boxes: Sequence[Box]) -> Prediction:
    """Return the prediction with the highest score that another part supports, with its box.

    Many squares mean many chances of a false positive, so a single one is not accepted. A higher
    threshold would not work instead, since the scores of some models cluster there. Measured in
    `docs/camera-loop.md`. The first prediction is for the whole frame, which needs no support.
    """
    parts = zip(predictions, boxes, strict=True)
    answered = [(prediction, box) for prediction, box in parts if prediction.label != NEITHER]

    def is_believed(part: tuple[Prediction, Box]) -> bool:
        one, box = part
        others = (
            place for other, place in answered if other is not one and other.label == one.label
        )
        return one is predictions[0] or any(_overlap(box, place) for place in others)

    believed = filter(is_believed, answered)
    whole = (predictions[0], boxes[0])
    best, box = max(believed, key=lambda part: part[0].certainty, default=whole)
    return best if best is predictions[0] else dataclasses.replace(best, box=box)


def _overlap(one: Box, other: Box) -> bool:
    width, height = (
        min(one[side] + one[side + 2], other[side] + other[side + 2]) - max(one[side], other[side])
        for side in (0, 1)
    )
    area = min(one[2] * one[3], other[2] * other[3])
    return width > 0 and height > 0 and width * height >= OVERLAP * area
