"""A fixed set of corruptions: what cameras and transmission do to images.

Random numbers are seeded by the image, so that every row and every run sees the same frames.
Strengths are relative to the size of the frame.
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
    """A corruption: what it does, and the function from a frame and a generator to a frame."""

    name: str
    says: str
    apply: Callable[[Image, np.random.Generator], Image]


def corrupt(corruption: Corruption, frame: Image, key: str) -> Image:
    """Corrupt one frame (`uint8 [H,W,3]` BGR); the input is unchanged, and the size may differ.

    `key` identifies the image (its digest) and seeds the random numbers.
    """
    seed = zlib.crc32(f"{corruption.name}/{key}".encode())
    return np.ascontiguousarray(corruption.apply(frame, np.random.default_rng(seed)))


def _dark(frame: Image, generator: np.random.Generator) -> Image:
    light = frame.astype(np.float32) * 0.2
    # The little light that is left is counted in few photons: shot noise grows as its root.
    light += generator.normal(0.0, 1.0, light.shape) * np.sqrt(light) * 0.6
    return _grey_levels(light)


def _blur(frame: Image, _generator: np.random.Generator) -> Image:
    sigma = 0.02 * min(frame.shape[:2])
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), max(sigma, 0.3)), dtype=np.uint8)


def _gaussian_noise(frame: Image, generator: np.random.Generator) -> Image:
    return _grey_levels(frame + generator.normal(0.0, 25.0, frame.shape))


def _jpeg(frame: Image, _generator: np.random.Generator) -> Image:
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 10])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def _crop(frame: Image, generator: np.random.Generator) -> Image:
    return frame[_part(frame, 0.6, generator)]


def _rotation(frame: Image, generator: np.random.Generator) -> Image:
    height, width = frame.shape[:2]
    angle = 25.0 if generator.random() < 0.5 else -25.0
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def _small(frame: Image, generator: np.random.Generator) -> Image:
    # Surrounded by the image's own colours, so that there is no edge to find.
    sigma = max(0.1 * min(frame.shape[:2]), 0.3)
    around = np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), dtype=np.uint8)
    part = around[_part(frame, 0.4, generator)]
    part[:] = cv2.resize(frame, part.shape[1::-1], interpolation=cv2.INTER_AREA)
    return around


def _part(frame: Image, share: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """Choose a random region of a share of the height and of the width."""
    rows, columns = (max(1, round(share * side)) for side in frame.shape[:2])
    top = int(generator.integers(0, frame.shape[0] - rows + 1))
    left = int(generator.integers(0, frame.shape[1] - columns + 1))
    return slice(top, top + rows), slice(left, left + columns)


def _grey_levels(values: npt.NDArray[Any]) -> Image:
    levels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


CORRUPTIONS = (
    Corruption("dark", "a fifth of the light, with shot noise", _dark),
    Corruption("blur", "Gaussian, sigma 2 % of the shorter side", _blur),
    Corruption("noise", "Gaussian, standard deviation 25 of 255", _gaussian_noise),
    Corruption("jpeg", "JPEG at quality 10", _jpeg),
    Corruption("crop", "60 % of each side, anywhere in the frame", _crop),
    Corruption("rotation", "25 degrees to either side, borders mirrored", _rotation),
    Corruption("small", "40 % of each side of the frame, anywhere, on its own colours", _small),
)
