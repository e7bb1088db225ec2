"""Whether anything has moved since the model ran last; if not, its answer still holds.

Compares small grey images, so that noise averages out, and takes off what light does to all of
them alike, so that a cloud or the exposure of a camera is no motion.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.preprocess import Image

GRID = 32  # blocks per side of the grey image

MIN_BLOCKS = 3
"""Blocks that must differ: 0.3 % of the image, below anything that could be recognised."""

MIN_CHANGE = 3.0
"""Grey levels by which a block must differ at least; what video coding does stays below."""

NOISE_FACTOR = 6.0  # the same in multiples of the noise that neighbouring frames show

MAX_NOISE = 6.0
"""Grey levels; larger differences of neighbouring frames are not believed to be noise."""

GAIN, OFFSET = 0.25, 20.0  # change of light beyond which the model runs all the same
REACH = 5  # blocks, odd: what moves within half of that is one thing, an animal's head and tail

_Blocks = npt.NDArray[np.float32]


class MotionGate:
    """Decides for each frame whether the model must run.

    Args:
        settle: Seconds for which it runs after the last motion.
        refresh: Seconds after which it runs again without any motion.
        rest: Frames that must lie between two such runs, for slow sources.

    Attributes:
        moved: Where the last frame differed most, as left, top, right and bottom in shares of
            its sides; `None`: nowhere, or by the light alone.
    """

    def __init__(self, settle: float = 0.5, refresh: float = 10.0, rest: int = 40) -> None:
        self.moved: tuple[float, float, float, float] | None = None
        self._settle, self._refresh, self._rest = settle, refresh, rest
        self._classified: _Blocks | None = None
        self._earlier: _Blocks | None = None
        self._last: _Blocks | None = None
        self._noise = 1.0
        self._moved_at = self._classified_at = 0.0
        self._skipped = 0

    def must_classify(self, image: Image, time: float) -> bool:
        """Whether the answer to this frame may differ from the answer given last.

        Args:
            image: `uint8 [S,S,3]` BGR, the frame at the model's size.
            time: Of the frame, seconds, never falling.
        """
        blocks = _blocks(image)
        if self._last is not None:
            change = blocks - self._last
            noise = 1.4826 * float(np.median(np.abs(change - np.median(change))))
            self._noise += 0.05 * (min(noise, MAX_NOISE) - self._noise)
        self._last = blocks
        if self._classified is None or self._differs(blocks, self._classified):
            self._moved_at = time
        due = time - self._classified_at >= self._refresh and self._skipped >= self._rest
        if self._classified is None or time - self._moved_at <= self._settle or due:
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
            # Where it has been is as it was before it came: only where it is differs from both.
            gain, offset = _light(self._earlier, blocks)
            here = off & (np.abs(blocks - (gain * self._earlier + offset)) > least)
            off = here if int(np.count_nonzero(here)) >= MIN_BLOCKS else off
        self.moved = _largest(off)
        return True


def _largest(moved: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The bounds of the largest group of blocks that lie near each other."""
    near = cv2.dilate(moved.astype(np.uint8), np.ones((REACH, REACH), np.uint8))
    _count, groups = cv2.connectedComponents(near)
    groups[~moved] = 0
    rows, columns = np.nonzero(groups == np.bincount(groups[moved]).argmax())
    left, top = int(columns.min()), int(rows.min())
    right, bottom = int(columns.max()) + 1, int(rows.max()) + 1
    return left / GRID, top / GRID, right / GRID, bottom / GRID


def _blocks(image: Image) -> _Blocks:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    # To float before the mean is taken: whole grey levels would be a noise of their own.
    small = cv2.resize(np.asarray(grey, np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32, copy=False)


def _light(before: _Blocks, now: _Blocks) -> tuple[float, float]:
    """Gain and offset that map most of one image to the other, whatever a part of it does."""
    gain, offset = 1.0, float(np.median(now - before))
    for _ in range(3):
        off = np.abs(now - (gain * before + offset))
        keep = off <= max(1.0, 1.5 * float(np.median(off)))
        x, y = before[keep], now[keep]
        spread = float(np.var(x))
        # A flat image does not show the gain.
        gain = 1.0 + float(np.mean((x - x.mean()) * (y - x - (y - x).mean()))) / (spread + 25.0)
        offset = float(y.mean()) - gain * float(x.mean())
    return gain, offset
