"""Videos of known content for the tests: real photographs where they are, drawings elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from support.cameras import servers
from support.cameras.servers import drawing  # noqa: F401 - tests take it from here
from support.cameras.servers import photographs as read_photographs

SIZE = (640, 360)
"""Width and height of the frames, pixels."""

photographs = functools.cache(read_photographs)


def stamped(count: int) -> Iterator[np.ndarray]:
    """Frames that carry their number: photographs that follow each other, slowly panned."""
    pictures = [p for kind in ("cat", "street", "dog") for p in photographs(kind, 3)]
    wide = np.hstack(pictures)
    step = (wide.shape[1] - SIZE[0]) / count
    for number in range(count):
        left = int(number * step)
        frame = wide[:, left : left + SIZE[0]].copy()
        servers.stamp(frame, number)
        yield frame


TRUTH = [("enter", "cat", 0.0), ("exit", "cat", 4.0), ("enter", "dog", 8.0), ("exit", "dog", 12.0)]
"""What happens in `four_scenes`, and when."""


def four_scenes(
    pictures: list[np.ndarray], fps: float, *, pan: bool, dark: bool
) -> Iterator[np.ndarray]:
    """Sixteen seconds: cat, street, dog, street, four seconds each, with a camera's noise.

    With hard cuts, or with pans of a second and a half across the border of two pictures that
    stand side by side; the truth of a pan is when half of the next picture is visible.
    """
    width = pictures[0].shape[1]
    wide = np.hstack([*pictures, pictures[-1]])
    random = np.random.default_rng(5)
    for number in range(round(16 * fps)):
        scene, within = divmod(number / fps, 4.0)
        place = scene
        if pan:
            place += max(0.0, (within - 3.25) / 1.5) if scene < 3 else 0.0
            place -= max(0.0, (0.75 - within) / 1.5) if scene > 0 else 0.0
        left = round(place * width)
        yield as_seen(wide[:, left : left + width], random, dark)


def as_seen(picture: np.ndarray, random: np.random.Generator, dark: bool) -> np.ndarray:
    """A frame of it by a camera with noise, by day or in a quarter of the light."""
    frame = picture * np.float32(0.25 if dark else 1.0)
    frame = frame + random.normal(0, 3, (*picture.shape[:2], 1)).astype(np.float32)
    return frame.clip(0, 255).astype(np.uint8)


def write(frames: Iterator[np.ndarray], path: Path, fps: float) -> Path:
    """Write a video that every OpenCV can write and read."""
    writer = None
    for frame in frames:
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
            assert writer.isOpened()
        writer.write(frame)
    assert writer is not None
    writer.release()
    return path


RED = (0, 0, 255)


HEIGHT, WIDTH = 180, 320


def yard(left: int | None, size: int = 48, top: int = 100) -> np.ndarray:
    """A grey yard, with a red cat in it that is too small for the whole frame."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    if left is not None:
        image[top : top + size, max(0, left) : max(0, left + size)] = RED
    return image
