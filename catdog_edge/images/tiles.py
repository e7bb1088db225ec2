"""Parts of a frame: the squares that a search classifies."""

from __future__ import annotations

from catdog_edge.images.preprocess import Image
from catdog_edge.spec import Box


def tiles(height: int, width: int, least: int) -> list[Box]:
    """Return overlapping squares that cover a frame, at two scales.

    The sides are the frame's short side and half of it; neighbours overlap by half or more. A
    scale whose squares are smaller than the model's input would only enlarge pixels: the half is
    then the model's input, and is left out where that is nearly the short side.

    Args:
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        least: Longer side of the model's input, pixels.
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
    """Evenly spaced starts of pieces that cover a length and overlap by half or more."""
    steps = -(-2 * (length - side) // side)
    return [round(step * (length - side) / steps) for step in range(steps + 1)] if steps else [0]


def cut(image: Image, box: Box) -> Image:
    """Return a part of an image; a view."""
    left, top, width, height = box
    return image[top : top + height, left : left + width]
