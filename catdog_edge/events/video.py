"""The annotated picture: drawn, recorded to a video, shown in a window.

Knows frames and what is known at each (`View`), nothing of cameras or files of events.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from catdog_edge.camera.camera import Frame
from catdog_edge.errors import CatdogError
from catdog_edge.events.events import View
from catdog_edge.events.sinks import Say, Trouble
from catdog_edge.images.preprocess import Image
from catdog_edge.spec import NEITHER
from catdog_edge.system.child import child_command, child_environment
from catdog_edge.system.files import take_free_name

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What each kind of file is written with; all of it is in the packages on PyPI."""

BRIDGED = 1.0
"""Seconds without a frame up to which the last one is shown on; longer gaps are left out."""

MEASURED = 8
"""Frames from which the frame rate of the file is taken."""

LEAST_ROOM = 4_000_000
"""Free bytes below which nothing is recorded."""

ROOM_EVERY = 30
"""Frames between two looks at the free room."""

_PRESENT, _ABSENT, _INK = (96, 200, 32), (160, 160, 160), (255, 255, 255)


def annotate(frame: Frame, view: View) -> Image:
    """A copy of the frame with source, time, what is there, and the smoothed evidence.

    Returns:
        `uint8 [H,W,3]` BGR of the frame's size.
    """
    image = frame.image.copy()
    height, width = image.shape[:2]
    scale = max(0.3, min(height / 500, width / 700))
    thick = max(1, round(1.5 * scale))
    line = round(28 * scale)
    colour = _ABSENT if view.present == NEITHER else _PRESENT
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), colour, max(4, round(8 * scale)))
    cv2.rectangle(image, (0, 0), (width, line + round(6 * scale)), (0, 0, 0), -1)
    moment = datetime.fromtimestamp(frame.wall, UTC).strftime("%Y-%m-%d %H:%M:%S")
    _write(image, f"{frame.source}  {moment}Z", (round(8 * scale), line), scale, thick, _INK)
    answer = str(view.prediction) + ("" if view.asked else "  still")
    (wide, _), _base = cv2.getTextSize(answer, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, thick)
    _write(image, answer, (width - wide - round(8 * scale), line), scale, thick, colour)
    for row, (label, value) in enumerate(zip(view.prediction.labels, view.smoothed, strict=True)):
        bottom = height - round(10 * scale) - row * (line + 4)
        full = round(0.25 * width)
        shown = _PRESENT if label == view.present else _ABSENT
        left = round(8 * scale)
        cv2.rectangle(image, (left, bottom - line + 4), (left + full, bottom), (0, 0, 0), -1)
        cv2.rectangle(
            image, (left, bottom - line + 4), (left + round(full * value), bottom), shown, -1
        )
        _write(image, label, (left + 4, bottom - round(5 * scale)), scale, thick, _INK)
    return image


def _write(
    image: Image, text: str, at: tuple[int, int], scale: float, thick: int, ink: tuple[int, ...]
) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, ink, thick, cv2.LINE_AA)


class Recorder:
    """Writes annotated frames of one source to a video that plays at the true speed.

    A video file has one frame rate, a camera has not: the rate is that of the first frames,
    and later ones are written as often as their time asks for. A gap of more than a second
    is left out, not filled; the time drawn on the frames tells.

    Args:
        path: `.mp4`, `.mkv` or `.avi`. An `.mp4` is unreadable when its writer is killed. A
            name that is taken gets a number: no file is overwritten.
        say: Told of trouble, in one line.

    Raises:
        CatdogError: The ending is another one, or the file cannot be made.
    """

    def __init__(self, path: Path, say: Say) -> None:
        if path.suffix.lower() not in CODECS:
            raise CatdogError(f"{path}: a recording ends in {', '.join(CODECS)}")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise CatdogError(f"{path}: there is no folder {path.parent} to write into; make it")
        self.trouble = Trouble("frames", say)
        self._path, _number = take_free_name(path.parent, path.stem, path.suffix)
        if self._path != path:
            say(f"{path} is there already; recording to {self._path}")
        self._held: list[tuple[float, Image]] = []
        self._writer: cv2.VideoWriter | None = None
        self._fps = 0.0
        self._size = (0, 0)
        self._last = 0.0
        self._due = 0.0
        self._since = 0
        self._room = True

    def write(self, frame: Frame, image: Image) -> None:
        """Take the annotated picture of a frame."""
        self._held.append((frame.monotonic, image))
        if self._writer is not None or len(self._held) == MEASURED:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        with contextlib.suppress(OSError):
            if not self._path.stat().st_size:
                self._path.unlink()  # it held the name, and nothing came

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and self._writer is None:
            gaps = np.diff([moment for moment, _image in held])
            self._open(float(np.median(gaps)) if len(gaps) else 0.0, held[0][1])
        for moment, image in held:
            try:
                self._put(moment, image)
            except OSError as error:
                self.trouble.failed(self._path, error)

    def _open(self, interval: float, image: Image) -> None:
        self._fps = round(min(60.0, max(1.0, 1 / interval)), 2) if interval > 0 else 15.0
        # Codecs want even sizes.
        height, width = image.shape[:2]
        self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, code, self._fps, self._size)
        self._last = -2 * BRIDGED

    def _put(self, moment: float, image: Image) -> None:
        assert self._writer is not None
        gap, self._last = moment - self._last, moment
        self._due += gap * self._fps if 0 <= gap <= BRIDGED else 1.0
        if not self._writer.isOpened():
            raise OSError(errno.EINVAL, "the video cannot be opened for writing")
        # OpenCV does not say when a frame could not be written, so the room is looked at.
        if self._since % ROOM_EVERY == 0:
            self._room = shutil.disk_usage(self._path.parent).free > LEAST_ROOM
        self._since += 1
        if not self._room:
            self._due = 0.0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size)  # type: ignore[assignment]
        # Half a frame of slack, or rounding would drop and double frames by turns.
        while self._due > 0.5:
            self._writer.write(image)
            self._due -= 1.0
        self.trouble.done()


class Window:
    """Shows annotated frames, one window per source.

    Raises:
        CatdogError: There is no screen, or this OpenCV has no windows.
    """

    def __init__(self) -> None:
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise CatdogError("--show: there is no screen here (DISPLAY is not set); leave it out")
        # Where a window cannot be opened OpenCV may end the whole process: let it end another.
        done = subprocess.run(
            child_command(__name__), env=child_environment(), capture_output=True, timeout=30
        )
        if done.returncode:
            raise CatdogError(
                "--show: this OpenCV cannot open a window here; leave it out, or check the "
                "screen and install opencv-python rather than opencv-python-headless"
            )

    def show(self, frame: Frame, image: Image) -> bool:
        """Show a picture; `False` once `q` or Escape was pressed."""
        cv2.imshow(f"catdog-edge {frame.source}", image)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()


if __name__ == "__main__":  # the trial of `Window`
    cv2.namedWindow("catdog-edge")
    cv2.waitKey(1)
