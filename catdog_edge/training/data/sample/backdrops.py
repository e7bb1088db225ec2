"""Places for the drawn sample: rooms, meadows, walls, out-of-focus lights.

Knows nothing of animals: every place is as likely behind a cat as behind a dog.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.read import Frame
from catdog_edge.training.data.sample.pen import Colour


def noise(
    rng: np.random.Generator, height: int, width: int, grain: float, amplitude: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Smooth noise: `float32 [height,width,2]`, normal, of a grain in pixels."""
    coarse = (max(2, int(height / grain)), max(2, int(width / grain)))
    values = rng.standard_normal((*coarse, 2), np.float32) * np.array(amplitude, np.float32)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))


def backdrop(rng: np.random.Generator, height: int, width: int) -> tuple[Frame, float]:
    """Paint a place.

    Returns:
        `uint8 [height,width,3]` BGR, and where its floor begins, 0 (top) .. 1 (bottom).
    """
    floor = float(rng.uniform(0.5, 0.8))
    paint = (_room, _meadow, _bricks, _lights, _studio)[
        int(rng.choice(5, p=(0.3, 0.3, 0.15, 0.13, 0.12)))
    ]
    scene = np.zeros((height, width, 3), np.uint8)
    paint(rng, scene, floor)
    blur = float(rng.uniform(0, 0.02)) * height
    if blur > 1:
        scene = np.asarray(cv2.blur(cv2.blur(scene, (int(blur) | 1,) * 2), (int(blur) | 1,) * 2))
    grain = noise(rng, height, width, float(rng.uniform(3, 30)), (float(rng.uniform(2, 9)), 0))
    return np.clip(scene + grain[..., :1], 0, 255).astype(np.uint8), floor


def _colour(rng: np.random.Generator, low: int, high: int, vivid: int = 80) -> Colour:
    """Any hue, brightness in a range, saturation (0..255) at most `vivid`: rooms are not loud."""
    hue, saturation, value = rng.integers((0, 10, low), (180, vivid, high))
    pixel = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2BGR)
    blue, green, red = (int(part) for part in pixel[0, 0])
    return blue, green, red


def _room(rng: np.random.Generator, scene: Frame, floor: float) -> None:
    height, width = scene.shape[:2]
    ground = int(floor * height)
    wall = _colour(rng, 110, 235)
    scene[:] = wall
    if rng.random() < 0.4:  # wallpaper
        step = int(rng.integers(30, 70))
        other = tuple(int(c * 0.93) for c in wall)
        for x in range(0, width, 2 * step):
            scene[:ground, x : x + step] = other
    for _ in range(int(rng.integers(0, 3))):  # a window or a picture
        x, y = int(rng.integers(0, width)), int(rng.integers(0, max(1, ground // 2)))
        w, h = int(rng.integers(60, 160)), int(rng.integers(60, 150))
        frame, inside = _colour(rng, 60, 245), _colour(rng, 90, 250, 150)
        cv2.rectangle(scene, (x, y), (x + w, min(y + h, ground - 8)), frame, -1)
        cv2.rectangle(scene, (x + 9, y + 9), (x + w - 9, min(y + h - 9, ground - 17)), inside, -1)
    wood = np.array(_colour(rng, 80, 200, 60)) * (0.7, 0.86, 1.0)
    planks = int(rng.integers(18, 60))
    for y in range(ground, height, planks):
        scene[y : y + planks] = wood * rng.uniform(0.85, 1.1)
    cv2.rectangle(scene, (0, ground - 7), (width, ground), _colour(rng, 170, 250), -1)
    if rng.random() < 0.45:  # a rug or a cushion
        centre = (int(rng.integers(0, width)), (ground + height) // 2)
        size = (int(width * rng.uniform(0.3, 0.6)), int((height - ground) * 0.45))
        rug = _colour(rng, 60, 220, 160)
        cv2.ellipse(scene, centre, size, 0, 0, 360, rug, -1, cv2.LINE_AA)
        cv2.ellipse(scene, centre, size, 0, 0, 360, _colour(rng, 40, 220), 8, cv2.LINE_AA)
    if rng.random() < 0.35:  # a ball
        centre = (int(rng.integers(0, width)), int(rng.integers(ground, height)))
        cv2.circle(
            scene, centre, int(rng.integers(12, 34)), _colour(rng, 90, 255, 230), -1, cv2.LINE_AA
        )


def _meadow(rng: np.random.Generator, scene: Frame, floor: float) -> None:
    height, width = scene.shape[:2]
    ground = int(floor * height)
    top, low = np.sort(_colour(rng, 170, 240, 110))[::-1], np.array((250, 235, 215))
    share = np.linspace(0, 1, height)[:, None, None]
    scene[:] = (top * (1 - share) + low * share).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):  # clouds
        x, y = int(rng.integers(0, width)), int(rng.integers(0, max(1, ground // 2)))
        for step in range(4):
            spot = (x + step * 24, y + int(rng.integers(-8, 8)))
            cv2.ellipse(scene, spot, (34, 17), 0, 0, 360, (248, 248, 248), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 6))):  # hills, bushes, trees
        x = int(rng.integers(0, width))
        size = (int(rng.integers(40, 200)), int(rng.integers(20, 110)))
        green = (int(rng.integers(40, 90)), int(rng.integers(90, 160)), int(rng.integers(50, 120)))
        cv2.ellipse(scene, (x, ground), size, 0, 180, 360, green, -1, cv2.LINE_AA)
    dry = float(rng.uniform(0.4, 1.1))
    grass = (int(45 + 30 * rng.random()), int(rng.integers(105, 175)), int(105 * dry))
    scene[ground:] = grass
    blades = int(rng.integers(100, 350))
    xs, ys = rng.integers(0, width, blades), rng.integers(ground, height, blades)
    for x, y, shade, lean in zip(
        xs, ys, rng.uniform(0.7, 1.25, blades), rng.integers(-8, 8, blades)
    ):
        colour = tuple(min(255, int(c * shade)) for c in grass)
        long = 6 + int(22 * (y - ground) / max(1, height - ground))
        cv2.line(scene, (int(x), int(y)), (int(x + lean), int(y) - long), colour, 2, cv2.LINE_AA)


def _bricks(rng: np.random.Generator, scene: Frame, floor: float) -> None:
    height, width = scene.shape[:2]
    ground = int(floor * height)
    base = np.array(_colour(rng, 90, 170, 50)) * (0.7, 0.85, 1.15)
    scene[:] = tuple(int(c) for c in np.clip(base * 1.35, 0, 255))
    tall, long = int(rng.integers(18, 34)), int(rng.integers(50, 90))
    for row, y in enumerate(range(0, ground, tall)):
        for x in range(-long if row % 2 else -long // 2, width, long):
            colour = np.clip(base * rng.uniform(0.85, 1.12), 0, 255)
            corner = (x + long - 4, min(y + tall - 4, ground))
            cv2.rectangle(scene, (x, y), corner, tuple(int(c) for c in colour), -1)
    scene[ground:] = np.clip(np.array(_colour(rng, 90, 170)), 0, 255)


def _lights(rng: np.random.Generator, scene: Frame, floor: float) -> None:
    del floor
    height, width = scene.shape[:2]
    scene[:] = _colour(rng, 30, 120, 140)
    for _ in range(int(rng.integers(12, 30))):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        radius = int(rng.integers(10, 55))
        spot = scene.copy()
        cv2.circle(spot, centre, radius, _colour(rng, 120, 255, 170), -1, cv2.LINE_AA)
        cv2.addWeighted(spot, 0.45, scene, 0.55, 0, dst=scene)


def _studio(rng: np.random.Generator, scene: Frame, floor: float) -> None:
    height, width = scene.shape[:2]
    centre, edge = np.array(_colour(rng, 150, 250, 90)), np.array(_colour(rng, 60, 170, 130))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    share = np.clip(np.hypot(x - rng.uniform(-0.4, 0.4), y), 0, 1)[..., None]
    scene[:] = (centre * (1 - share) + edge * share).astype(np.uint8)
    ground = int(floor * height)
    scene[ground:] = (scene[ground:] * 0.88).astype(np.uint8)
