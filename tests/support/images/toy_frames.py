"""Frames whose class is clear to the toy models: red is a cat, blue is a dog, grey is neither."""

from __future__ import annotations

import numpy as np


def frame_of(blue: int, green: int, red: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (blue, green, red), np.uint8)


RED, BLUE, GREY = frame_of(0, 0, 200), frame_of(200, 0, 0), frame_of(128, 128, 128)


def images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """A batch of noise, `uint8 [N,size,size,3]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
