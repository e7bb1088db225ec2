"""Small pictures with a number in them, for the tests of cameras."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.cameras import servers

from catdog_edge.camera.camera import Frame


def numbered(number: int, width: int = 320, height: int = 180) -> np.ndarray:
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[60:120, 100:200] = (number * 7 % 256, 120, 200)
    servers.stamp(frame, number)
    return frame


def encoded(number: int) -> bytes:
    """A JPEG of it."""
    done, data = cv2.imencode(".jpg", numbered(number), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


def video(path: Path, frames: int = 50, fps: float = 25, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (320, 180))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(numbered(number))
    writer.release()
    return path


def numbers(frames: list[Frame]) -> list[int]:
    return [servers.read_stamp(frame.image) for frame in frames]


def animation(path: Path, durations: list[int], **options: object) -> Path:
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(numbered(n)[..., ::-1]) for n in range(len(durations))]
    more = {"duration": durations} if path.suffix != ".tiff" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more, **options)
    return path
