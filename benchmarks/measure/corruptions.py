"""A stated set of corruptions: what a camera does to a picture on a bad day.

Knows frames, nothing of models. Each one is fixed in strength and, where it draws random
numbers, seeded by the picture, so that every row and every run sees the same frames.
Strengths are relative to the size of the frame and mean the same at any size.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.preprocess import Image


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture.

    Attributes:
        name: One word.
        says: What it does, with its strength.
        apply: Image `uint8 [H,W,3]` BGR and a generator to a frame of the same kind.
    """

    name: str
    says: str
    apply: Callable[[Image, np.random.Generator], Image]


def corrupt(corruption: Corruption, frame: Image, key: str) -> Image:
    """Spoil one frame.

    Args:
        corruption: One of `CORRUPTIONS`.
        frame: `uint8 [H,W,3]` BGR.
        key: What tells this picture from others (its digest); seeds the random numbers.

    Returns:
        `uint8 [H',W',3]` BGR, contiguous; the frame that came in is left alone.
    """
    seed = zlib.crc32(f"{corruption.name}/{key}".encode())
    return np.ascontiguousarray(corruption.apply(frame, np.random.default_rng(seed)))


def _dark(frame: Image, generator: np.random.Generator) -> Image:
    light = frame.astype(np.float32) * 0.2
    # The little light that is left is counted in few photons: shot noise grows as its root.
    light += generator.normal(0.0, 1.0, light.shape) * np.sqrt(light) * 0.6
    return _grey_levels(light)


def _blur(frame: Image, generator: np.random.Generator) -> Image:
    del generator
    sigma = 0.02 * min(frame.shape[:2])
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), max(sigma, 0.3)), dtype=np.uint8)


def _noise(frame: Image, generator: np.random.Generator) -> Image:
    noisy = frame + generator.normal(0.0, 25.0, frame.shape)
    return _grey_levels(noisy)


def _jpeg(frame: Image, generator: np.random.Generator) -> Image:
    del generator
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 10])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def _crop(frame: Image, generator: np.random.Generator) -> Image:
    height, width = frame.shape[:2]
    part_height, part_width = max(1, round(0.6 * height)), max(1, round(0.6 * width))
    top = int(generator.integers(0, height - part_height + 1))
    left = int(generator.integers(0, width - part_width + 1))
    return frame[top : top + part_height, left : left + part_width]


def _rotation(frame: Image, generator: np.random.Generator) -> Image:
    height, width = frame.shape[:2]
    angle = 25.0 if generator.random() < 0.5 else -25.0
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def _small(frame: Image, generator: np.random.Generator) -> Image:
    # The surroundings are the picture's own colours, so that the task is to find it, not an edge.
    height, width = frame.shape[:2]
    sigma = max(0.1 * min(height, width), 0.3)
    around = np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), dtype=np.uint8)
    part_height, part_width = max(1, round(0.4 * height)), max(1, round(0.4 * width))
    top = int(generator.integers(0, height - part_height + 1))
    left = int(generator.integers(0, width - part_width + 1))
    around[top : top + part_height, left : left + part_width] = cv2.resize(
        frame, (part_width, part_height), interpolation=cv2.INTER_AREA
    )
    return around


def _grey_levels(values: npt.NDArray[Any]) -> Image:
    levels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


CORRUPTIONS = (
    Corruption("dark", "a fifth of the light, with shot noise", _dark),
    Corruption("blur", "Gaussian, sigma 2 % of the shorter side", _blur),
    Corruption("noise", "Gaussian, standard deviation 25 of 255", _noise),
    Corruption("jpeg", "JPEG at quality 10", _jpeg),
    Corruption("crop", "60 % of each side, anywhere in the frame", _crop),
    Corruption("rotation", "25 degrees to either side, borders mirrored", _rotation),
    Corruption("small", "40 % of each side of the frame, anywhere, on its own colours", _small),
)
