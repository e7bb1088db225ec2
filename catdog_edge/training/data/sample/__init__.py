"""Cats and dogs drawn in code: what `--data sample` is made of.

Each drawing has its own pose, coat, size, light and background, and cats and dogs draw nearly
all of those from the same distributions: what tells them apart is the shape of ears, muzzle,
eyes, body and tail, and that stripes are commoner on cats, as in life. A linear classifier of
the pixels does no better than chance. They are good for trying the commands and for tests, and
say nothing of how a model does on photographs.

Knows nothing of data sets.
"""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.read import Frame
from catdog_edge.training.data.sample.animals import POSES, portrait
from catdog_edge.training.data.sample.backdrops import backdrop, noise
from catdog_edge.training.data.sample.heads import choose_look
from catdog_edge.training.data.sample.pen import Pen

KINDS = ("cat", "dog")
COUNT = 400
"""Drawings of each kind in the sample."""


def draw(kind: str, number: int, seed: int = 0) -> Frame:
    """Draw one animal.

    Args:
        kind: `cat` or `dog`.
        number: Which one; each number is another animal in another place.
        seed: Another seed is another set.

    Returns:
        `uint8 [H,W,3]` BGR, 128 to 216 pixels a side; always the same for the same arguments.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number, seed])
    height, width = (int(rng.integers(64, 109)) * 2 for _ in range(2))
    scene, floor = backdrop(rng, height * 2, width * 2)
    scene = _animal(rng, kind, scene, floor)
    picture = cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA)
    return _camera(rng, np.asarray(picture, np.uint8))


def _animal(rng: np.random.Generator, kind: str, scene: Frame, floor: float) -> Frame:
    pose, box = POSES[int(rng.choice(len(POSES), p=(0.46, 0.26, 0.14, 0.14)))]
    look = choose_look(rng, kind)
    height, width = scene.shape[:2]
    left, top, right, bottom = box
    share = float(rng.uniform(0.8, 1.1) if pose is portrait else rng.uniform(0.75, 1.0))
    scale = share * min(width / (right - left), height / (bottom - top))
    mirror = rng.random() < 0.5
    # Standing on the floor where there is room, and anywhere from left to right.
    slack_x = max(0.0, width - scale * (right - left)) / 2
    x = width / 2 + float(rng.uniform(-1, 1)) * (slack_x * 0.8 + width * 0.06)
    if pose is portrait:
        y = height - scale * (bottom - 0.3)
    else:
        ground = max(floor * height, scale * (bottom - top) * 0.98)
        ground += float(rng.uniform(0.25, 0.9)) * max(0.0, height * 0.98 - ground)
        y = ground - scale * bottom
        scene = _shadow(scene, x, ground, scale * (right - left) * 0.4, scale * 0.32)
    middle = scale * (left + right) / 2
    pen = Pen(height, width, (x + (middle if mirror else -middle), y), scale, mirror)
    face = pose(rng, kind, look, pen)
    _lay_fur(rng, pen, scene)
    # Eyes, nose and whiskers lie over the fur, sharp.
    face(Pen(height, width, pen.origin, scale, mirror, canvas=scene))
    return scene


# ---- light -----------------------------------------------------------------------------


def _lay_fur(rng: np.random.Generator, pen: Pen, scene: Frame) -> None:
    """Give flat colours a body and lay it on the scene: hairs, grain, light, dark rims."""
    left, top, width, height = cv2.boundingRect(pen.mask)
    if not width or not height:
        return
    part = slice(top, top + height), slice(left, left + width)
    unit = pen.scale
    long = unit * float(rng.choice([0.012, 0.025, 0.04]))  # short, medium and long hair
    drift = noise(rng, height, width, max(2.0, unit * 0.045), (long, long))
    drift[..., 0] += np.arange(width, dtype=np.float32)
    drift[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    flat = np.dstack([pen.canvas[part], pen.mask[part]])
    fuzzy = cv2.remap(flat, drift, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    mask = np.asarray(fuzzy[..., 3:], np.float32) * np.float32(1 / 255)
    depth = cv2.blur(mask, (int(unit * 0.5) | 1,) * 2)
    grain = noise(rng, height, width, max(1.5, unit * 0.03), (0.06, 0))[..., 0]
    height_up = np.linspace(0.08, -0.08, height, dtype=np.float32)[:, None]
    light = np.float32(0.7) + np.float32(0.36) * depth + grain + height_up
    lit = np.clip(fuzzy[..., :3] * light[..., None], 0, 255)
    scene[part] = np.asarray(lit * mask + scene[part] * (1 - mask), np.uint8)


def _shadow(scene: Frame, x: float, y: float, half_width: float, half_height: float) -> Frame:
    shade = np.zeros(scene.shape[:2], np.uint8)
    size = (max(1, int(half_width)), max(1, int(half_height)))
    cv2.ellipse(shade, (int(x), int(y)), size, 0, 0, 360, 110, -1, cv2.LINE_AA)
    soft = cv2.blur(shade, (int(half_height) | 1,) * 2).astype(np.uint16)[..., None]
    return (scene * (255 - soft) // 255).astype(np.uint8)


def _camera(rng: np.random.Generator, picture: Frame) -> Frame:
    """Exposure, a tint, a little blur and noise, as cameras add them."""
    gain = rng.uniform(0.72, 1.12) * rng.uniform(0.96, 1.04, 3)
    out: npt.NDArray[Any] = picture * gain.astype(np.float32) + np.float32(rng.uniform(-10, 14))
    if rng.random() < 0.25:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 1.1)))
    out += rng.normal(0, rng.uniform(1.0, 6.0), out.shape[:2]).astype(np.float32)[..., None]
    return np.asarray(np.clip(out, 0, 255), np.uint8)
