"""Detect outdated and damaged frames of a live stream.

A stream delivers old frames after a connect (data buffered to recognise the stream), after a
network stall, and whenever the bandwidth is too low. After damaged data a decoder delivers
corrupt images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise

STALE = 1.0  # delay in seconds beyond which a frame is dropped
CATCHING_UP = 3.0  # seconds after a connect within which a burst of old frames is recognised as one
DRIFT = 0.001  # largest difference in rate of an ordinary camera clock; 0.0001 is usual

LONGEST_QUEUE = 30.0
"""Seconds of video that a camera or a network may hold back; a larger growth is clock drift."""

_STEP = 0.2
"""Seconds of delay after which it is checked whether the stream's clock runs at our rate."""
_PAUSE = 0.5  # seconds of a wait that counts as one for the network
_BLOCK = 4.0  # seconds over which the smallest difference is taken
_SLOPE = 0.01  # smallest growth that blocks detect, seconds per second
_ALIKE = 0.25  # relative difference up to which two measured rates are the same


class Freshness:
    """Estimates how late each frame is, from the stream's own timestamps.

    The smallest difference between arrival and timestamp so far belongs to a frame without
    delay; frames later than that by `STALE` are old. Right after a connect that difference is
    unknown: frames count as old while they arrive faster than they were captured.

    A delay that grows at a constant rate, over two windows and without pauses, is clock drift:
    the camera's frame rate differs from its timestamps. It is measured only on frames that this
    process waited for: the first one of a burst, and none if the reader is too slow. Timestamps
    are then corrected by the measured rate. If the growth soon ends, or the timestamps jump
    ahead, it may have been a queue, and the whole growth counts as delay.

    A stream is `timed` if it has its own timestamps (RTSP and RTMP do; for an MJPEG stream FFmpeg
    derives them from frame numbers). Without them the first frame after a pause is old, since it
    may have been captured before it.
    """

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self._frames = 0
        self._start = self._arrival = self._stamp = self._interval = 0.0
        self._settled = False
        self._best = 0.0  # smallest difference, moved along at the stream's measured rate
        self._first_best = 0.0  # the same at our own rate
        self._growth = 0.0  # measured growth of the difference, seconds per second
        self._last_growth: float | None = None
        self._waited_for: float | None = None  # arrival of the last frame that we waited for
        self._gap = 0.0  # usual time between two such frames
        self._block: list[tuple[float, float]] = []  # their arrivals and differences of late
        self._lowest: list[tuple[float, float]] = []  # arrival and smallest difference of 3 blocks
        self._jitter = 0.0
        self._begin_window(0.0, 0.0)

    def lag(self, arrival: float, stamp: float, *, queued: bool = False) -> float:
        """Return the delay of a frame in seconds, 0 or more; infinite: old by an unknown time.

        `arrival` is the monotonic clock when the frame was decoded, `stamp` its timestamp in the
        stream, both in seconds; `queued`: it had arrived before it was requested.
        """
        waited, advanced = arrival - self._arrival, stamp - self._stamp
        self._arrival, self._stamp = arrival, stamp
        self._frames += 1
        if self._frames == 1:
            self._start, self._best = arrival, arrival - stamp
            self._first_best = self._best
            return math.inf if self._timed else 0.0  # the next one shows whether it was waiting
        if self._frames == 2:
            self._interval = waited
        silent = waited > max(STALE, 3 * self._interval)
        if self._timed:
            lag = self._lag_by_stamp(waited, advanced, queued)
        else:
            lag = math.inf if silent else 0.0
        self._interval += 0.1 * (min(waited, 3 * self._interval) - self._interval)
        return lag

    def _lag_by_stamp(self, waited: float, advanced: float, queued: bool) -> float:
        offset = self._arrival - self._stamp
        if advanced < 0:  # the stream's clock was set back: its old times mean nothing now
            self._best = self._first_best = offset
            self._begin_window(self._arrival, offset)
        self._first_best = min(self._first_best + DRIFT * waited, offset)
        self._best = min(self._best + (DRIFT + self._growth) * waited, offset)
        if not self._settled:
            self._begin_window(self._arrival, offset)
            self._waited_for = self._arrival
            self._settled = waited >= 0.5 * advanced or self._arrival - self._start > CATCHING_UP
        elif advanced - waited > _STEP:
            self._reject_drift()
        else:
            self._measure_growth(offset, queued)
        return max(0.0, offset - self._best) if self._settled else math.inf

    def _measure_growth(self, offset: float, queued: bool) -> None:
        """Compare the growth of the difference over two windows of variable length."""
        if queued:
            return
        before, self._waited_for = self._waited_for, self._arrival
        gap = self._arrival - (before or self._arrival)
        if before is None or gap > max(_PAUSE, 3 * (self._gap or gap)):
            self._begin_window(self._arrival, offset)
            self._last_growth = None
            self._block.clear()
            self._lowest.clear()
            return
        self._gap += 0.1 * (gap - self._gap) if self._gap else gap
        self._measure_block(offset)
        elapsed = self._arrival - self._window_start
        grown = offset - self._window_offset - self._growth * elapsed
        if abs(grown) < max(_STEP, 4 * self._jitter) or elapsed < 0.5:
            return
        growth = self._growth + grown / elapsed
        earlier, self._last_growth = self._last_growth, growth
        self._begin_window(self._arrival, offset)
        if earlier is not None and abs(growth - earlier) <= _ALIKE * abs(growth) + DRIFT:
            self._accept_drift(growth, offset)

    def _measure_block(self, offset: float) -> None:
        """Compare the growth of the smallest difference over three blocks; robust to jitter."""
        block = self._block
        block.append((self._arrival, offset))
        if self._arrival - block[0][0] < _BLOCK:
            return
        offsets = [one for _, one in block]
        self._jitter = max(offsets) - min(offsets) - abs(offsets[-1] - offsets[0])
        lowest = self._lowest
        lowest.append(min(block, key=lambda one: one[1] - self._growth * one[0]))
        block.clear()
        if len(lowest) < 3:
            return
        slopes = [(y[1] - x[1]) / (y[0] - x[0]) - self._growth for x, y in pairwise(lowest)]
        del lowest[0]
        least, most = sorted(map(abs, slopes))
        if least > _SLOPE and abs(slopes[0] - slopes[1]) <= _ALIKE * most + _SLOPE:
            growth = self._growth + sum(slopes) / 2
            self._accept_drift(growth, lowest[-1][1] + growth * (self._arrival - lowest[-1][0]))
            self._begin_window(self._arrival, offset)
            self._last_growth = None

    def _accept_drift(self, growth: float, offset: float) -> None:
        """Accept a growth as clock drift; a much smaller one resets it."""
        self._block.clear()
        self._lowest.clear()
        if growth > 0.1 * self._growth:
            self._growth, self._best = growth, offset
        elif self._growth:
            self._reject_drift()

    def _reject_drift(self) -> None:
        """Count the accepted clock drift as delay, if it may be one."""
        if self._best - self._first_best < LONGEST_QUEUE:
            self._best = self._first_best
        self._first_best, self._growth, self._last_growth = self._best, 0.0, None
        self._begin_window(self._arrival, self._arrival - self._stamp)

    def _begin_window(self, arrival: float, offset: float) -> None:
        self._window_start, self._window_offset = arrival, offset


_DECODERS = re.compile(
    r"\[(NULL|h264|hevc|mjpeg|mpeg[124]?\w*|h263|vp[89]|av1|libdav1d|flv) @ [^\]]*\] (.*)"
)
_HARMLESS = re.compile(r"SEI type|APP fields|number of reference frames|deprecated|non[- ]monoton")
_KEY_FRAME = ord("I")


class DamageFilter:
    """Decides from the decoder's log whether a decoded image is intact.

    After an error, images are corrupt until the next key frame that decodes without one:
    those in between are predicted from the damaged one and log no error themselves.
    """

    def __init__(self) -> None:
        self.damaged = False

    def is_intact(self, log: Iterable[str], frame_type: int) -> bool:
        """Check whether the last decoded frame is intact.

        `log` is FFmpeg's log since the frame before, `frame_type` OpenCV's
        `CAP_PROP_FRAME_TYPE`: a letter's code, 0 or `?` if unknown.
        """
        errors = filter(None, map(_DECODERS.match, log))
        if any(not _HARMLESS.search(error.group(2)) for error in errors):
            self.damaged = True
        elif frame_type == _KEY_FRAME:
            self.damaged = False
        return not self.damaged
