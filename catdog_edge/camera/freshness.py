"""Which frames of a live stream are what the camera sees now, and which are whole.

Knows clocks and FFmpeg's log lines, nothing of sockets, processes or pictures. A stream
hands over old frames after a connect (what was read to recognise the stream), after a
network that stood still, and whenever more is sent than arrives; and after damaged data a
decoder hands over pictures that no camera ever saw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

STALE = 1.0
"""Seconds behind the stream's best moment beyond which a frame is not handed on."""

CATCHING_UP = 3.0
"""Seconds after a connect for which a burst of old frames is taken to be one."""

DRIFT = 0.001
"""How much faster or slower than ours a camera's clock may run; ordinary ones: 0.0001."""


class Freshness:
    """Tells how far a frame lags behind, from the stream's own times.

    The smallest difference between arrival and stream time seen so far is a frame that came
    without delay; what is later than that by a second is old. The mark follows a camera whose
    clock runs otherwise than ours. Right after a connect it is not known yet: there a frame
    counts as old while frames come faster than they were made.

    Args:
        timed: Whether the stream carries times of its own (RTSP and RTMP do; FFmpeg numbers
            the pictures of an MJPEG stream and calls that times). Without them the first
            frame after a silence is called old, since it may have begun before it.
    """

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self._frames = 0
        self._start = 0.0
        self._arrival = 0.0
        self._stamp = 0.0
        self._interval = 0.0
        self._best = 0.0
        self._settled = False

    def lag(self, arrival: float, stamp: float) -> float:
        """Seconds by which a frame is late, 0 or more; infinite: old, by an unknown amount.

        Args:
            arrival: Our monotonic clock when the frame was decoded, seconds.
            stamp: The stream's time of the frame, seconds.
        """
        waited, advanced = arrival - self._arrival, stamp - self._stamp
        self._arrival, self._stamp = arrival, stamp
        self._frames += 1
        if self._timed:
            return self._lag_by_stamp(arrival, stamp, waited, advanced)
        return self._lag_by_silence(waited)

    def _lag_by_silence(self, waited: float) -> float:
        if self._frames == 1:
            return 0.0
        if self._frames == 2:
            self._interval = waited
        silent = waited > max(STALE, 3 * self._interval)
        self._interval += 0.1 * (min(waited, 3 * self._interval) - self._interval)
        return math.inf if silent else 0.0

    def _lag_by_stamp(self, arrival: float, stamp: float, waited: float, advanced: float) -> float:
        offset = arrival - stamp
        if self._frames == 1:
            self._start, self._best = arrival, offset
            return math.inf  # the next frame shows whether this one was waiting for us
        if advanced < 0:
            self._best = offset  # the stream's clock was set back: its old times mean nothing now
        self._best = min(self._best + DRIFT * waited, offset)
        if not self._settled:
            self._settled = waited >= 0.5 * advanced or arrival - self._start > CATCHING_UP
        return max(0.0, offset - self._best) if self._settled else math.inf


_DECODERS = re.compile(
    r"\[(NULL|h264|hevc|mjpeg|mpeg[124]?\w*|h263|vp[89]|av1|libdav1d|flv) @ [^\]]*\] (.*)"
)
_HARMLESS = re.compile(r"SEI type|APP fields|number of reference frames|deprecated|non[- ]monoton")
_KEY_FRAME = ord("I")


class Wholeness:
    """Tells whether a decoded picture can be trusted, from what the decoder complained about.

    Once it complains, its pictures are wrong until the next key frame that decodes without a
    complaint: those in between are built upon the damaged one and raise no error themselves.
    """

    def __init__(self) -> None:
        self._damaged = False
        self.complaint = ""
        """The decoder's latest complaint."""

    def is_whole(self, complaints: Iterable[str], frame_type: int) -> bool:
        """Whether the frame just decoded is what the camera saw.

        Args:
            complaints: Log lines of FFmpeg since the frame before.
            frame_type: OpenCV's `CAP_PROP_FRAME_TYPE`: a letter's code, 0 or `?` if unknown.
        """
        fresh = [
            match.group(2)
            for match in map(_DECODERS.match, complaints)
            if match and not _HARMLESS.search(match.group(2))
        ]
        if fresh:
            self.complaint = fresh[-1]
            self._damaged = True
        elif frame_type == _KEY_FRAME:
            self._damaged = False
        return not self._damaged
