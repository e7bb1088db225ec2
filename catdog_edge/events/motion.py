"""Detect motion since the model last ran, and crop a square of the frame around it.

Without motion the prediction is reused. Small grey images are compared, so that noise averages
out; global changes of light, as by a cloud or the camera's exposure, do not count as motion.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.preprocess import Image
from catdog_edge.spec import NEITHER, Box, Prediction

SETTLE = 0.5  # seconds for which the model runs after the last motion
REFRESH = 10.0  # seconds after which the model runs again without motion
REST = 40  # minimum number of frames between two such runs, for slow sources

GRID = 32  # blocks per side of the grey image

MIN_BLOCKS = 3
"""Blocks that must differ: 0.3 % of the image, below anything that could be recognised."""

MIN_CHANGE = 3.0
"""Grey levels by which a block must differ at least; what video coding does stays below."""

NOISE_FACTOR = 6.0  # the same in multiples of the noise between neighbouring frames

MAX_NOISE = 6.0
"""Grey levels; larger differences of neighbouring frames are not believed to be noise."""

GAIN, OFFSET = 0.25, 20.0  # change of light beyond which the model runs without motion
REACH = 5  # blocks, odd: what moves within half of that is one thing, an animal's head and tail

MARGIN = 0.1
"""Margin on each side, as a fraction of the moving region; the block grid adds its own."""

_Blocks = npt.NDArray[np.float32]

_Region = tuple[float, float, float, float]  # left, top, right and bottom


class MotionGate:
    """Decides for each frame whether the model must run.

    Attributes:
        moved: Where the last frame differed most: left, top, right and bottom as fractions of
            its sides; `None`: nowhere, or only by the light.
    """

    def __init__(self) -> None:
        self.moved: _Region | None = None
        self._classified: _Blocks | None = None
        self._earlier: _Blocks | None = None
        self._last: _Blocks | None = None
        self._noise = 1.0
        self._moved_at = self._classified_at = 0.0
        self._skipped = 0

    def must_classify(self, image: Image, time: float) -> bool:
        """Check whether the prediction for this frame may differ from the last one.

        Args:
            image: `uint8 [S,S,3]` BGR, the frame at the model's size.
            time: Time of the frame, seconds, never decreasing.
        """
        blocks = _blocks(image)
        if self._last is not None:
            change = blocks - self._last
            noise = 1.4826 * float(np.median(np.abs(change - np.median(change))))
            self._noise += 0.05 * (min(noise, MAX_NOISE) - self._noise)
        self._last = blocks
        if self._classified is None or self._differs(blocks, self._classified):
            self._moved_at = time
        due = time - self._classified_at >= REFRESH and self._skipped >= REST
        if self._classified is None or time - self._moved_at <= SETTLE or due:
            self._earlier, self._classified = self._classified, blocks
            self._classified_at, self._skipped = time, 0
            return True
        self._skipped += 1
        return False

    def _differs(self, blocks: _Blocks, before: _Blocks) -> bool:
        self.moved = None
        least = max(MIN_CHANGE, NOISE_FACTOR * self._noise)
        if int(np.count_nonzero(np.abs(blocks - before) > least)) < MIN_BLOCKS:
            return False  # neither motion nor light
        gain, offset = _light(before, blocks)
        if abs(gain - 1) > GAIN or abs(offset) > OFFSET:
            return True
        off = np.abs(blocks - (gain * before + offset)) > least
        if int(np.count_nonzero(off)) < MIN_BLOCKS:
            return False
        if self._earlier is not None:
            # Where the object was, the background is visible again, as in the earlier image; where
            # the object is now differs from both images.
            gain, offset = _light(self._earlier, blocks)
            here = off & (np.abs(blocks - (gain * self._earlier + offset)) > least)
            off = here if int(np.count_nonzero(here)) >= MIN_BLOCKS else off
        self.moved = _largest(off)
        return True


def _largest(moved: npt.NDArray[np.bool_]) -> _Region:
    """Return the bounds of the largest group of neighbouring blocks."""
    near = cv2.dilate(moved.astype(np.uint8), np.ones((REACH, REACH), np.uint8))
    _count, groups = cv2.connectedComponents(near)
    groups[~moved] = 0
    rows, columns = np.nonzero(groups == np.bincount(groups[moved]).argmax())
    left, top = int(columns.min()), int(rows.min())
    right, bottom = int(columns.max()) + 1, int(rows.max()) + 1
    return left / GRID, top / GRID, right / GRID, bottom / GRID


def _blocks(image: Image) -> _Blocks:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    # Converted to float before the mean: rounding to grey levels would add noise.
    small = cv2.resize(np.asarray(grey, np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32, copy=False)


def _light(before: _Blocks, now: _Blocks) -> tuple[float, float]:
    """Fit gain and offset that map one image to the other, robust to local changes."""
    gain, offset = 1.0, float(np.median(now - before))
    for _ in range(3):
        off = np.abs(now - (gain * before + offset))
        keep = off <= max(1.0, 1.5 * float(np.median(off)))
        x, y = before[keep], now[keep]
        spread = float(np.var(x))
        # A flat image does not show the gain.
        gain = 1.0 + float(np.mean((x - x.mean()) * (y - x))) / (spread + 25.0)
        offset = float(y.mean()) - gain * float(x.mean())
    return gain, offset


class MotionCrop:
    """The square of one source that is classified in addition to the whole frame.

    It follows the movement, and stays at the last one: an animal that lies down is still there.
    While a class is detected in it, movement inside does not change it.

    Args:
        least: Longer side of the model's input, pixels; the square is never smaller.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        # Fractions, not pixels: the size of the frames may change, and the square with it.
        self._region: _Region | None = None

    def follow(
        self, height: int, width: int, moved: _Region | None, prediction: Prediction | None
    ) -> Box | None:
        """Return the square for a frame; `None` if there is none, or it covers the whole frame.

        `moved` is as in `MotionGate`, `prediction` is for the frame before; `None`: its size was
        another, or there is none.
        """
        if min(height, width) < self._least:
            return None
        box = self._square(height, width)
        if moved is not None and not _is_inside(moved, height, width, box, prediction):
            self._region = moved
            box = self._square(height, width)
        return None if box == (0, 0, width, height) else box

    def _square(self, height: int, width: int) -> Box | None:
        if self._region is None:
            return None
        left, top, right, bottom = _pixels(self._region, height, width)
        size = (1 + 2 * MARGIN) * max(right - left, bottom - top)
        side = min(height, width, max(self._least, round(size)))
        column = _start((left + right) / 2, side, width)
        return column, _start((top + bottom) / 2, side, height), side, side


def _is_inside(
    moved: _Region, height: int, width: int, box: Box | None, prediction: Prediction | None
) -> bool:
    """Check whether a movement is inside the square in which a class was detected."""
    if box is None or prediction is None or prediction.label == NEITHER or prediction.box != box:
        return False
    left, top, right, bottom = _pixels(moved, height, width)
    across = box[0] <= left and right <= box[0] + box[2]
    return across and box[1] <= top and bottom <= box[1] + box[3]


def _pixels(region: _Region, height: int, width: int) -> _Region:
    left, top, right, bottom = region
    return left * width, top * height, right * width, bottom * height


def _start(centre: float, side: int, length: int) -> int:
    return round(min(max(centre - side / 2, 0), length - side))
