"""Cats and dogs drawn in code: the images of `--data sample`.

Cats and dogs share coats, sizes, light and backgrounds; ears, eyes, muzzle and tail tell them
apart. A linear classifier of the pixels does no better than chance. The drawings are for
trying the commands and for tests, and tell nothing about accuracy on photographs.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from catdog_edge.images.preprocess import Image
from catdog_edge.training.data.sample.animals import draw_animal
from catdog_edge.training.data.sample.scenes import draw_scene, smooth_noise

KINDS = ("cat", "dog")
COUNT = 400  # drawings of each kind


def draw(kind: str, number: int, seed: int = 0) -> Image:
    """Draw a `cat` or a `dog` in a scene: `uint8 [H,W,3]` BGR, 128 to 216 pixels a side.

    Each number is another animal in another scene, each seed another set; the same arguments give
    the same image.

    Examples:
        >>> draw("cat", 3).shape[2]
        3
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number, seed])
    height, width = (int(rng.integers(64, 109)) * 2 for _ in range(2))
    scene = draw_scene(rng, height * 2, width * 2)
    body, face = draw_animal(rng, kind, height * 2, width * 2)
    scene = _with_fur(rng, scene, *body)
    colours, mask = face  # eyes, nose and whiskers stay sharp over the fur
    scene = np.where(mask[..., None] > 0, colours, scene)
    return _photograph(rng, cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA))


def _with_fur(rng: np.random.Generator, scene: Image, colours: Image, mask: Image) -> Image:
    """Lay flat colours on the scene with a rough outline, grain, and light from above."""
    height, width = mask.shape
    grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    drift = grid + smooth_noise(rng, height, width, 3, rng.choice([1.0, 2.0, 3.0]), 2)
    flat = cv2.remap(np.dstack([colours, mask]), drift[..., 0], drift[..., 1], cv2.INTER_LINEAR)
    share = flat[..., 3:].astype(np.float32) / 255
    depth = cv2.blur(share, (41, 41))[..., None]  # the rim is darker than the middle
    light = 0.68 + 0.36 * depth + smooth_noise(rng, height, width, 2, 0.06, 1)
    light += np.linspace(0.08, -0.08, height)[:, None, None]
    return np.clip(flat[..., :3] * light * share + scene * (1 - share), 0, 255).astype(np.uint8)


def _photograph(rng: np.random.Generator, picture: cv2.typing.MatLike) -> Image:
    """Add exposure, a tint, blur and noise, as a camera does."""
    gain = rng.uniform(0.72, 1.12) * rng.uniform(0.96, 1.04, 3)
    out = picture * gain + rng.uniform(-10, 14)
    if rng.random() < 0.25:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 1.1)))
    out = out + rng.normal(0, rng.uniform(1, 6), (*out.shape[:2], 1))
    return np.clip(out, 0, 255).astype(np.uint8)
