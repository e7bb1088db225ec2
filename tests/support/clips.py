"""Videos of known content for the tests: real photographs where they are, drawings elsewhere."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from support import servers
from support.paths import ROOT

SIZE = (640, 360)
"""Width and height of the frames, pixels."""


def shared_folder() -> Path:
    default = ROOT.parent / "shared" / "data"
    return Path(os.environ.get("CATDOG_SHARED", default))


@functools.cache
def photographs(kind: str, count: int) -> list[np.ndarray]:
    """Frames of `SIZE` that show a `cat`, a `dog` or a `street`; drawn ones where none are."""
    name = "other.zip" if kind == "street" else "originals.zip"
    archive = shared_folder() / name
    if not archive.is_file():
        return [drawing(kind, number) for number in range(count)]
    with zipfile.ZipFile(archive) as opened:
        names = [n for n in sorted(opened.namelist()) if n.endswith(".jpg")]
        if kind != "street":
            names = [n for n in names if Path(n).name.startswith(kind)]
        found = [np.frombuffer(opened.read(n), np.uint8) for n in names[:count]]
    return [filling(cv2.imdecode(data, cv2.IMREAD_COLOR)) for data in found]


def filling(picture: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The middle of a picture, scaled so that it fills a frame."""
    scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    width, height = (max(size[axis], round(scale * picture.shape[1 - axis])) for axis in (0, 1))
    scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    return scaled[top : top + size[1], left : left + size[0]].copy()


def drawing(kind: str, seed: int) -> np.ndarray:
    """A frame of one colour with some structure: red for cats, blue for dogs, else grey."""
    random = np.random.default_rng([seed, len(kind)])
    base = {"cat": (20, 20, 200), "dog": (200, 20, 20)}.get(kind, (120, 120, 120))
    coarse = np.asarray(base, float) + random.normal(0, 12, (9, 16, 1))
    return cv2.resize(coarse.clip(0, 255).astype(np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)


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
