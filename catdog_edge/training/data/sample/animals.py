"""The animals of the drawn sample: coats, bodies, and the heads that tell cats from dogs.

One unit is half the width of a head, y points down, the head's centre is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from catdog_edge.images.preprocess import Image
from catdog_edge.training.array_types import Float64
from catdog_edge.training.data.sample.scenes import Colour

Point = tuple[float, float]
Layer = tuple[Image, Image]  # colours, `uint8 [H,W,3]` BGR, and mask, `uint8 [H,W]`, of a drawing

_COATS: tuple[tuple[Colour, Colour], ...] = (
    # The coat and its light parts (muzzle, chest, paws), BGR.
    ((52, 118, 205), (190, 222, 245)),  # ginger
    ((48, 50, 56), (120, 125, 132)),  # black
    ((128, 128, 132), (215, 215, 218)),  # grey
    ((70, 100, 140), (175, 200, 222)),  # brown
    ((205, 222, 236), (240, 246, 250)),  # cream
    ((40, 62, 98), (110, 150, 190)),  # chocolate
    ((105, 92, 84), (200, 195, 190)),  # blue
)
_COLLARS: tuple[Colour, ...] = ((40, 40, 200), (190, 90, 40), (60, 150, 60), (50, 190, 230))
_INK, _WHITE, _PINK = (34, 30, 34), (250, 250, 250), (140, 140, 215)


class _Pen:
    """Draws smooth shapes in an animal's units on a layer of its own."""

    def __init__(self, height: int, width: int, origin: Point, scale: float, tilt: float) -> None:
        self.layer = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        self._origin, self._scale = origin, scale
        self._turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])

    def fill(
        self, points: Sequence[Point], colour: Colour, *, sharp: bool = False, inside: bool = False
    ) -> None:
        """Fill a shape, rounded unless `sharp`; `inside`: only where something is drawn."""
        canvas, mask = self.layer
        shape = np.zeros_like(mask)
        outline = np.array(points) if sharp else _rounded(np.array(points))
        cv2.fillPoly(shape, [self._pixels(outline)], 255, cv2.LINE_AA, 4)
        shape = shape & mask if inside else shape
        canvas[shape > 0] = colour
        np.maximum(mask, shape, out=mask)

    def oval(self, x: float, y: float, w: float, h: float, colour: Colour, **how: bool) -> None:
        """Fill an ellipse of half width `w` and half height `h`."""
        turns = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        self.fill([(x + w * math.cos(t), y + h * math.sin(t)) for t in turns], colour, **how)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a stroke."""
        thickness = max(1, round(width * self._scale))
        for target, ink in zip(self.layer, (colour, (255,))):
            path = self._pixels(np.array(points))
            cv2.polylines(target, [path], False, ink, thickness, cv2.LINE_8, 4)

    def _pixels(self, points: Float64) -> npt.NDArray[np.int32]:
        return np.asarray((points @ self._turn * self._scale + self._origin) * 16, np.int32)


def _rounded(points: Float64) -> Float64:
    """Return a closed Catmull-Rom curve through points."""
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    p0, p1, p2, p3 = (np.roll(points, shift, 0)[:, None] for shift in (1, 0, -1, -2))
    square, cube = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
    return np.asarray((p1 + t * (p2 - p0 + t * (square + t * cube)) / 2).reshape(-1, 2))


def _both_sides(*half: Point) -> list[Point]:
    """Return a symmetrical outline from its right half, top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def _mix(left: Colour, right: Colour, share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(left, right))


class _Look(NamedTuple):
    """What one animal looks like; cats and dogs draw it from the same distributions."""

    coat: Colour
    light: Colour
    dark: Colour
    snout: Colour
    striped: bool
    bib: bool  # light muzzle, chest and paws
    turn: float  # of the head, -0.25 (left) .. 0.25 (right)


def draw_animal(rng: Generator, kind: str, height: int, width: int) -> tuple[Layer, Layer]:
    """Draw a cat or a dog: its body and head without a face, and the face."""
    coat, light = _COATS[int(rng.integers(len(_COATS)))]
    shift = rng.uniform(-16, 16) + rng.uniform(-6, 6, 3)
    coat = tuple(int(np.clip(c + s, 12, 245)) for c, s in zip(coat, shift))
    striped, bib, sits, collar = rng.random(4) < (0.4, 0.5, 0.5, 0.35)
    look = _Look(
        coat, light, _mix(coat, _INK, 0.55), light if bib else _mix(coat, light, 0.45),
        striped, bib, rng.uniform(-0.25, 0.25),
    )  # fmt: skip
    scale = rng.uniform(0.8, 1.0) * min(width / 3.4, height / (5.0 if sits else 3.4))
    x = width / 2 + rng.uniform(-1, 1) * max(0.0, width / 2 - 1.5 * scale)
    origin, tilt = (x, height - scale * (3.4 if sits else 1.8)), rng.normal(0, 0.08)
    body, face = (_Pen(height, width, origin, scale, tilt) for _ in range(2))
    if sits:
        _sitting(rng, kind, look, body)
    else:
        wide = rng.uniform(1.2, 1.6)
        body.fill(_both_sides((0.6, 0.4), (wide, 1.6), (wide, 3.2)), coat)
        _markings(rng, look, body, 1.7, wide)
    if collar:
        body.line(
            [(-0.6, 0.95), (0, 1.08), (0.6, 0.95)], 0.16, _COLLARS[int(rng.integers(len(_COLLARS)))]
        )
    (_cat_head if kind == "cat" else _dog_head)(rng, look, body, face)
    return body.layer, face.layer


def _sitting(rng: Generator, kind: str, look: _Look, pen: _Pen) -> None:
    side, bend, cat = rng.choice([-1, 1]), rng.uniform(-0.2, 0.2), kind == "cat"
    tail = ((0.7, 2.8), (1.2, 2.6), (1.5 + bend, 2.0))
    long = ((0.7, 2.9), (1.4, 3.0), (1.65, 2.3), (1.4 + bend, 1.5))
    shade = _mix(look.coat, look.dark, 0.3)
    pen.line([(side * x, y) for x, y in (long if cat else tail)], 0.26 if cat else 0.4, shade)
    wide = rng.uniform(0.9, 1.15)
    pen.fill(_both_sides((0.5, 0.5), (wide, 2.6), (0.8, 3.3)), look.coat)
    _markings(rng, look, pen, 2.1, wide)
    for x in (-0.35, 0.35):
        pen.oval(x, 2.55, 0.22, 0.7, _mix(look.coat, look.light, 0.15))
        pen.oval(x, 3.25, 0.32, 0.17, look.light if look.bib else look.coat)


def _markings(rng: Generator, look: _Look, pen: _Pen, y: float, wide: float) -> None:
    if look.striped:
        for x in np.linspace(-wide, wide, int(rng.integers(5, 9))):
            stripe = ((x, y - 0.7), (x + 0.12, y), (x, y + 0.6), (x - 0.06, y))
            pen.fill(stripe, look.dark, inside=True)
    elif rng.random() < 0.4:
        spot = (look.light, look.dark)[int(rng.integers(2))]
        size = rng.uniform(0.3, 0.6)
        pen.oval(rng.uniform(-0.8, 0.8), y, size, size * 0.8, spot, inside=True)
    if look.bib:
        pen.oval(0, y - 0.5, 0.42, 0.75, look.light, inside=True)


def _forehead(look: _Look, pen: _Pen) -> None:
    for x in (-0.3, 0.0, 0.3) if look.striped else ():
        stripe = ((x - 0.06, -0.85), (x + 0.06, -0.85), (x + look.turn, -0.4))
        pen.fill(stripe, look.dark, sharp=True)


def _cat_head(rng: Generator, look: _Look, pen: _Pen, face: _Pen) -> None:
    tall, turn = rng.uniform(1.25, 1.5), look.turn
    iris = ((70, 190, 170), (40, 170, 220), (200, 160, 80), (80, 200, 120))[int(rng.integers(4))]
    slit, hair = rng.uniform(0.04, 0.1), _WHITE if sum(look.coat) < 480 else (70, 70, 80)
    for s in (-1, 1):  # pointed ears
        pen.fill([(s * 0.2, -0.65), (s * 0.68, -tall), (s * 0.98, -0.2)], look.coat, sharp=True)
        pen.fill([(s * 0.4, -0.7), (s * 0.68, 0.2 - tall), (s * 0.85, -0.4)], _PINK, sharp=True)
    pen.fill(_both_sides((0.3, -0.8), (0.8, -0.5), (1.0, 0.15), (0.6, 0.74)), look.coat)
    _forehead(look, pen)
    for s in (-1, 1):
        pen.oval(turn + s * 0.17, 0.42, 0.25, 0.2, look.snout)
        x = turn + s * 0.41  # slanted eyes with slits
        for size, colour in ((1.2, _INK), (1.0, iris)):
            corners = ((-0.25, 0.06), (0.0, -0.15), (0.26, -0.12), (0.05, 0.15))
            face.fill([(x + s * dx * size, dy * size - 0.06) for dx, dy in corners], colour)
        face.oval(x, -0.06, slit, 0.15, _INK)
        face.oval(x - 0.06, -0.12, 0.04, 0.04, _WHITE)
        for rise in (-0.16, 0.02, 0.2):  # whiskers
            whisker = ((turn + s * 0.22, 0.4 + rise / 3), (turn + s * 1.2, 0.36 + rise * 1.5))
            face.line(whisker, 0.015, hair)
        face.line([(turn, 0.34), (turn + s * 0.1, 0.52), (turn + s * 0.26, 0.47)], 0.035, _INK)
    face.fill([(turn - 0.12, 0.22), (turn + 0.12, 0.22), (turn, 0.35)], _PINK, sharp=True)


def _dog_head(rng: Generator, look: _Look, pen: _Pen, face: _Pen) -> None:
    turn, x = look.turn, look.turn * 1.6
    wide, long, shade = rng.uniform(0.74, 0.88), rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.8)
    pricked, tongue = rng.random(2) < (0.25, 0.5)
    flap = ((0.4, -0.78), (0.85, -0.7), (1.14, 0.0), (0.98, long), (0.74, 0.1))
    if pricked:
        flap = ((0.25, -0.4), (0.3, -0.7), (0.55, -1.35), (0.72, -0.9), (0.8, -0.3))
    pen.fill(_both_sides((0.3, -0.8), (wide, -0.4), (wide, 0.2), (0.35, 0.9)), look.coat)
    _forehead(look, pen)
    for s in (-1, 1):
        pen.fill([(s * dx, dy) for dx, dy in flap], _mix(look.coat, look.dark, shade))
    pen.oval(x * 0.8, 0.5, 0.45, 0.44, look.snout)
    for s in (-1, 1):
        eye = turn + s * 0.36  # round eyes
        for size, colour in ((0.15, _INK), (0.11, (40, 70, 110)), (0.06, _INK)):
            face.oval(eye, -0.14, size, size, colour)
        face.oval(eye - 0.05, -0.19, 0.035, 0.035, _WHITE)
        face.line([(x, 0.62), (x + s * 0.17, 0.73), (x + s * 0.34, 0.62)], 0.04, _INK)
    if tongue:
        face.oval(x, 0.88, 0.16, 0.2, (125, 115, 225))
    face.line([(x, 0.4), (x, 0.62)], 0.04, _INK)
    face.oval(x, 0.28, 0.23, 0.15, (28, 26, 30))
    face.oval(x - 0.06, 0.22, 0.07, 0.03, (150, 150, 155))
