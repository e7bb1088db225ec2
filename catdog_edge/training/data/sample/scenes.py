"""Backgrounds of the drawn sample: a room, a meadow, or lights out of focus."""

from __future__ import annotations

import cv2
import numpy as np

from catdog_edge.images.preprocess import Image
from catdog_edge.training.array_types import Float32

Colour = tuple[int, ...]


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, grain: float, scale: float, channels: int
) -> Float32:
    """Draw normal noise, `float32 [height,width,channels]`, of a grain in pixels."""
    size = (max(2, int(height / grain)), max(2, int(width / grain)), channels)
    fine = cv2.resize(rng.normal(0, scale, size), (width, height))
    return np.asarray(fine, np.float32).reshape(height, width, channels)


def draw_scene(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw a background, `uint8 [height,width,3]` BGR, as likely behind a cat as behind a dog."""
    scene = np.zeros((height, width, 3), np.uint8)
    paint = (_room, _meadow, _lights)[int(rng.choice(3, p=(0.45, 0.35, 0.2)))]
    paint(rng, scene, int(height * rng.uniform(0.5, 0.8)))
    blur = int(rng.uniform(0, 0.03) * height) | 1
    grain = smooth_noise(rng, height, width, rng.uniform(3, 30), rng.uniform(2, 9), 1)
    return np.asarray(np.clip(cv2.blur(scene, (blur, blur)) + grain, 0, 255), np.uint8)


def _colour(rng: np.random.Generator, low: int, high: int, vivid: int = 80) -> Colour:
    """Draw a colour of any hue, brightness in a range, saturation (0..255) below `vivid`."""
    pixel = rng.integers((0, 10, low), (180, vivid, high)).astype(np.uint8)
    return tuple(cv2.cvtColor(pixel[None, None], cv2.COLOR_HSV2BGR)[0, 0].tolist())


def _room(rng: np.random.Generator, scene: Image, floor: int) -> None:
    height, width = scene.shape[:2]
    scene[:floor] = _colour(rng, 110, 235)
    if rng.random() < 0.4:  # wallpaper
        stripe = int(rng.integers(30, 70))
        scene[:floor, np.arange(width) // stripe % 2 == 0] -= 8
    for _ in range(int(rng.integers(0, 3))):  # pictures on the wall
        x, y, w, h = (int(n) for n in rng.integers((0, 0, 60, 60), (width, floor // 2, 160, 140)))
        cv2.rectangle(scene, (x, y, w, h), _colour(rng, 60, 245), -1)
        cv2.rectangle(scene, (x + 9, y + 9, w - 18, h - 18), _colour(rng, 90, 250, 150), -1)
    wood = np.array(_colour(rng, 80, 200, 60)) * (0.7, 0.86, 1.0)
    plank = int(rng.integers(18, 60))
    for y in range(floor, height, plank):
        scene[y : y + plank] = wood * rng.uniform(0.85, 1.1)
    scene[floor - 7 : floor] = _colour(rng, 170, 250)


def _meadow(rng: np.random.Generator, scene: Image, floor: int) -> None:
    height, width = scene.shape[:2]
    sky = np.sort(_colour(rng, 170, 240, 110))[::-1]
    scene[:] = np.linspace(sky, (250, 235, 215), height)[:, None]
    for _ in range(int(rng.integers(1, 6))):  # hills
        x, tall, *green = (
            int(n) for n in rng.integers((0, 30, 40, 90, 50), (width, 130, 90, 160, 120))
        )
        cv2.ellipse(scene, (x, floor), (110, tall), 0, 180, 360, green, -1, cv2.LINE_AA)
    grass = rng.integers((45, 105, 40), (75, 175, 115))
    scene[floor:] = grass
    for _ in range(int(rng.integers(100, 350))):  # blades
        x, y = int(rng.integers(0, width)), int(rng.integers(floor, height))
        tip = (x + int(rng.integers(-8, 8)), y - 6 - 20 * (y - floor) // (height - floor))
        cv2.line(scene, (x, y), tip, tuple((grass * rng.uniform(0.7, 1.25)).tolist()), 2)


def _lights(rng: np.random.Generator, scene: Image, floor: int) -> None:
    del floor
    height, width = scene.shape[:2]
    scene[:] = _colour(rng, 30, 190, 140)
    for _ in range(int(rng.integers(12, 30))):
        centre, lit = (int(rng.integers(0, width)), int(rng.integers(0, height))), scene.copy()
        cv2.circle(lit, centre, int(rng.integers(10, 55)), _colour(rng, 120, 255, 170), -1)
        cv2.addWeighted(lit, 0.45, scene, 0.55, 0, dst=scene)
