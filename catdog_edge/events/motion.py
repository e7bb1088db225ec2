"""Whether anything moved since the model was last asked; if not, its answer still holds.

Knows pictures of the model's size and time, nothing of models or events. Compares small grey
pictures, so that noise averages out, and takes off what light does to all of them alike, so
that a cloud or a camera's exposure is no movement.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

GRID = 32
"""Blocks per side of the grey picture."""

BLOCKS = 3
"""Blocks that must differ: 0.3 % of the picture, below any pet that could be recognised."""

LEAST = 3.0
"""Grey levels by which a block must differ at least; what video coding does stays below."""

NOISES = 6.0
"""The same in multiples of the noise that neighbouring frames show."""

LOUDEST = 6.0
"""Grey levels beyond which differences of neighbouring frames are not believed to be noise."""

GAIN, OFFSET = 0.25, 20.0
"""Change of light beyond which the model is asked again all the same."""

_Blocks = npt.NDArray[np.float32]


class MotionGate:
    """Says for each frame whether the model must be asked.

    Args:
        settle: Seconds for which it is asked on after the last movement.
        refresh: Seconds after which it is asked again though nothing moved.
        rest: Frames that must lie between two such refreshes, for slow sources.
    """

    def __init__(self, settle: float = 0.5, refresh: float = 10.0, rest: int = 40) -> None:
        self._settle = settle
        self._refresh = refresh
        self._rest = rest
        self._asked: _Blocks | None = None
        self._last: _Blocks | None = None
        self._noise = 1.0
        self._moved_at = 0.0
        self._asked_at = 0.0
        self._skipped = 0

    def must_ask(self, picture: npt.NDArray[np.uint8], time: float) -> bool:
        """Whether the answer to this frame may differ from the answer given last.

        Args:
            picture: `uint8 [S,S,3]` BGR, the frame at the model's size.
            time: Of the frame, seconds, never falling.
        """
        blocks = _blocks(picture)
        if self._last is not None:
            change = blocks - self._last
            noise = 1.4826 * float(np.median(np.abs(change - np.median(change))))
            self._noise += 0.05 * (min(noise, LOUDEST) - self._noise)
        self._last = blocks
        if self._asked is None or self._differs(blocks, self._asked):
            self._moved_at = time
        due = time - self._asked_at >= self._refresh and self._skipped >= self._rest
        if self._asked is None or time - self._moved_at <= self._settle or due:
            self._asked, self._asked_at, self._skipped = blocks, time, 0
            return True
        self._skipped += 1
        return False

    def _differs(self, blocks: _Blocks, asked: _Blocks) -> bool:
        least = max(LEAST, NOISES * self._noise)
        if int(np.count_nonzero(np.abs(blocks - asked) > least)) < BLOCKS:
            return False  # neither movement nor light
        gain, offset = _light(asked, blocks)
        if abs(gain - 1) > GAIN or abs(offset) > OFFSET:
            return True
        off = np.abs(blocks - (gain * asked + offset))
        return int(np.count_nonzero(off > least)) >= BLOCKS


def _blocks(picture: npt.NDArray[np.uint8]) -> _Blocks:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    # To float before the mean is taken: whole grey levels would be a noise of their own.
    return cv2.resize(
        np.asarray(grey, np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA
    ).astype(np.float32, copy=False)


def _light(before: _Blocks, now: _Blocks) -> tuple[float, float]:
    """Gain and offset that take most of one picture to the other, whatever a part of it does."""
    keep = np.ones(before.shape, bool)
    gain, offset = 1.0, float(np.median(now - before))
    for _ in range(3):
        off = np.abs(now - (gain * before + offset))
        keep = off <= max(1.0, 1.5 * float(np.median(off)))
        x, y = before[keep], now[keep]
        spread = float(np.var(x))
        # A flat picture tells nothing of the gain.
        gain = 1.0 + float(np.mean((x - x.mean()) * (y - x - (y - x).mean()))) / (spread + 25.0)
        offset = float(y.mean()) - gain * float(x.mean())
    return gain, offset
