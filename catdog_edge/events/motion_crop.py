"""Crop a square of the frame around the movement."""

from __future__ import annotations

from catdog_edge.spec import NEITHER, Box, Prediction

MARGIN = 0.1
"""Of the size of what moves, added on each side, beside what the gate's blocks are too large."""


class MotionCrop:
    """The square of one source that is classified in addition to the whole frame.

    It follows the movement, and stays at the last one: an animal that lies down is still there.
    While a class is detected in it, movement inside does not change it.

    Args:
        least: Longer side of the model's input, pixels; the square is never smaller.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._box: Box | None = None

    def follow(
        self,
        height: int,
        width: int,
        moved: tuple[float, float, float, float] | None,
        prediction: Prediction | None,
    ) -> Box | None:
        """Return the square for a frame; `None` if there is none, or it covers the whole frame.

        Args:
            height: Height of the frame, pixels.
            width: Width of the frame, pixels.
            moved: See `MotionGate.moved`.
            prediction: The prediction for the frame before.
        """
        short = min(height, width)
        if short < self._least:
            return None
        if moved is not None:
            left, right = moved[0] * width, moved[2] * width
            top, bottom = moved[1] * height, moved[3] * height
            box = self._box
            if (
                box is not None
                and prediction is not None
                and prediction.label != NEITHER
                and prediction.box == box
                and (box[0] <= left and right <= box[0] + box[2])
                and (box[1] <= top and bottom <= box[1] + box[3])
            ):
                return box
            size = (1 + 2 * MARGIN) * max(right - left, bottom - top)
            side = min(short, max(self._least, round(size)))
            column = _start((left + right) / 2, side, width)
            self._box = (column, _start((top + bottom) / 2, side, height), side, side)
        return None if self._box == (0, 0, width, height) else self._box


def _start(centre: float, side: int, length: int) -> int:
    return round(min(max(centre - side / 2, 0), length - side))
