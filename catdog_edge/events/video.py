"""Draw annotated video, record it to a file, show it in a window."""

from __future__ import annotations

import contextlib
import errno
import logging
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
from catdog_edge.events.sinks import WriteFailures
from catdog_edge.images.draw import WHITE, draw_box
from catdog_edge.images.preprocess import Image
from catdog_edge.spec import NEITHER
from catdog_edge.system.child_process import child_command, child_environment
from catdog_edge.system.files import take_free_name

log = logging.getLogger(__name__)

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""The codec of each kind of file; all of them are in the packages on PyPI."""

LONGEST_REPEAT = 1.0
"""Seconds without a frame for which the last one is repeated; longer gaps are left out."""

MEASURED = 8  # frames from which the frame rate of the file is taken
MIN_FREE = 4_000_000  # free bytes below which nothing is recorded
CHECK_EVERY = 30  # frames between two checks of the free space

_PRESENT, _ABSENT = (96, 200, 32), (160, 160, 160)


def draw_overlay(frame: Frame, view: View) -> Image:
    """Draw source, time, visit and prediction on a copy of a frame.

    The header has source, time and the label of the current visit; below it is the prediction
    for the last frame that was classified, with its box.

    Returns:
        `uint8 [H,W,3]` BGR of the frame's size.
    """
    image = frame.image.copy()
    height, width = image.shape[:2]
    scale = max(0.3, min(height / 500, width / 700))
    thickness = max(1, round(1.5 * scale))
    line, margin = round(28 * scale), round(8 * scale)

    def write(text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, text, (x, y), font, 0.8 * scale, colour, thickness, cv2.LINE_AA)

    colour = _ABSENT if view.present == NEITHER else _PRESENT
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), colour, max(4, margin))
    if view.prediction.box is not None:
        draw_box(image, view.prediction.box, WHITE if view.classified else _ABSENT)
    cv2.rectangle(image, (0, 0), (width, 2 * line + round(6 * scale)), (0, 0, 0), -1)
    moment = datetime.fromtimestamp(frame.wall, UTC).strftime("%Y-%m-%d %H:%M:%S")
    write(f"{frame.source}  {moment}Z", margin, line, WHITE)
    (wide, _), _ = cv2.getTextSize(view.present, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, thickness)
    write(view.present, width - wide - margin, line, colour)
    answer = f"{'frame' if view.classified else 'still'}: {view.prediction}"
    write(answer, margin, 2 * line, _ABSENT)
    full = round(0.25 * width)
    for row, (label, score) in enumerate(zip(view.prediction.labels, view.smoothed, strict=True)):
        bottom = height - round(10 * scale) - row * (line + 4)
        top = (margin, bottom - line + 4)
        bar = _PRESENT if label == view.present else _ABSENT
        cv2.rectangle(image, top, (margin + full, bottom), (0, 0, 0), -1)
        cv2.rectangle(image, top, (margin + round(full * score), bottom), bar, -1)
        write(label, margin + 4, bottom - round(5 * scale), WHITE)
    return image


class Recorder:
    """Writes annotated frames of one source to a video that plays at the original speed.

    A video file has a constant frame rate, a camera does not: the rate is that of the first
    frames, and later ones are repeated or dropped to keep their time. A gap of more than a second
    is skipped, not filled; the time drawn on the frames shows it.

    Args:
        path: `.mp4`, `.mkv` or `.avi`. An `.mp4` is unreadable when its writer is killed. If
            the file exists, the name gets a number: no file is overwritten.

    Raises:
        CatdogError: The suffix is not supported, or the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in CODECS:
            raise CatdogError(f"{path}: a recording ends in {', '.join(CODECS)}")
        if not path.parent.is_dir():
            raise CatdogError(f"{path}: there is no folder {path.parent} to write into; make it")
        if not os.access(path.parent, os.W_OK):
            raise CatdogError(f"cannot write into {path.parent}: permission denied; choose another")
        self.failures = WriteFailures("frames")
        self._path, _number = take_free_name(path.parent, path.stem, path.suffix)
        if self._path != path:
            log.warning("%s is there already; recording to %s", path, self._path)
        self._held: list[tuple[float, Image]] = []
        self._writer: cv2.VideoWriter | None = None
        self._fps = self._last = self._due = 0.0
        self._size = (0, 0)
        self._since_check = 0
        self._has_room = True

    def write(self, frame: Frame, image: Image) -> None:
        """Write the annotated image of a frame, `uint8 [H,W,3]` BGR."""
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
                self._path.unlink()  # it reserved the name, and nothing was written

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and self._writer is None:
            gaps = np.diff([moment for moment, _image in held])
            self._open(float(np.median(gaps)) if len(gaps) else 0.0, held[0][1])
        for moment, image in held:
            try:
                self._write(moment, image)
            except OSError as error:
                self.failures.add(self._path, error)

    def _open(self, interval: float, image: Image) -> None:
        self._fps = round(min(60.0, max(1.0, 1 / interval)), 2) if interval > 0 else 15.0
        # Codecs want even sizes.
        height, width = image.shape[:2]
        self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, code, self._fps, self._size)
        self._last = -2 * LONGEST_REPEAT

    def _write(self, moment: float, image: Image) -> None:
        assert self._writer is not None
        gap, self._last = moment - self._last, moment
        self._due += gap * self._fps if 0 <= gap <= LONGEST_REPEAT else 1.0
        if not self._writer.isOpened():
            raise OSError(errno.EINVAL, "the video cannot be opened for writing")
        # OpenCV does not report a frame that could not be written.
        if self._since_check % CHECK_EVERY == 0:
            self._has_room = shutil.disk_usage(self._path.parent).free > MIN_FREE
        self._since_check += 1
        if not self._has_room:
            self._due = 0.0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if image.shape[1::-1] != self._size:
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        # Half a frame of slack, or rounding would drop and double frames by turns.
        while self._due > 0.5:
            self._writer.write(image)
            self._due -= 1.0
        self.failures.end_row()


class Window:
    """Shows annotated frames, one window per source.

    Raises:
        CatdogError: There is no display, or this build of OpenCV has no window support.
    """

    def __init__(self) -> None:
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise CatdogError("--show: there is no screen here (DISPLAY is not set); leave it out")
        # If a window cannot be opened, OpenCV may abort the process: try it in another one.
        command, environment = child_command(__name__), child_environment()
        if subprocess.run(command, env=environment, capture_output=True, timeout=30).returncode:
            raise CatdogError(
                "--show: this OpenCV cannot open a window here; leave it out, or check the "
                "screen and install opencv-python rather than opencv-python-headless"
            )

    def show(self, frame: Frame, image: Image) -> bool:
        """Show an image, `uint8 [H,W,3]` BGR; return `False` after `q` or Escape was pressed."""
        cv2.imshow(f"catdog-edge {frame.source}", image)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()


if __name__ == "__main__":  # the trial of `Window`
    cv2.namedWindow("catdog-edge")
    cv2.waitKey(1)
