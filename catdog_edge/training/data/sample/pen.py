"""A pen for the drawn sample: smooth shapes in an animal's own coordinates.

Knows how to put a shape on a canvas and nothing of what it means.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.read import Frame

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

_SHIFT = 4  # OpenCV draws at 1/16 of a pixel


def mix(left: Colour, right: Colour, share: float) -> Colour:
    """`left` with a share (0..1) of `right` in it."""
    blue, green, red = (round(a + (b - a) * share) for a, b in zip(left, right))
    return blue, green, red


def oval(
    centre: tuple[float, float], half_width: float, half_height: float, count: int = 20
) -> Points:
    """Points round an ellipse."""
    x, y = centre
    turns = [2 * math.pi * step / count for step in range(count)]
    return [(x + half_width * math.cos(t), y + half_height * math.sin(t)) for t in turns]


class Pen:
    """Draws on a canvas and keeps, in `mask`, where it has drawn.

    Attributes:
        canvas: `uint8 [H,W,3]` BGR.
        mask: `uint8 [H,W]`, 255 where something is drawn.
        origin: Where the point (0, 0) is, in pixels.
        scale: Pixels per unit.
    """

    def __init__(
        self,
        height: int,
        width: int,
        origin: tuple[float, float],
        scale: float,
        mirror: bool,
        canvas: Frame | None = None,
    ) -> None:
        self.canvas = np.zeros((height, width, 3), np.uint8) if canvas is None else canvas
        self.mask = np.zeros((height, width), np.uint8)
        self.origin = origin
        self.scale = scale
        self._mirror = mirror
        self._centre = (0.0, 0.0)
        self._angle = 0.0

    @contextlib.contextmanager
    def placed(self, centre: tuple[float, float], angle: float) -> Iterator[None]:
        """Draw round another centre, turned by `angle` (radians)."""
        before = self._centre, self._angle
        self._centre, self._angle = centre, angle
        yield
        self._centre, self._angle = before

    def blob(self, points: Points, colour: Colour, inside: bool = False) -> None:
        """A filled shape, rounded through its points; `inside`: only where the animal is."""
        self._fill(_rounded(np.asarray(points, np.float64)), colour, inside)

    def shape(self, points: Points, colour: Colour) -> None:
        """A filled polygon with sharp corners."""
        self._fill(np.asarray(points, np.float64), colour, False)

    def tube(
        self, points: Points, widths: Sequence[float], colour: Colour, inside: bool = False
    ) -> None:
        """A stroke along points whose half width changes from one to the next."""
        path = _through(np.asarray(points, np.float64))
        at = np.linspace(0, len(widths) - 1, len(path))
        half = np.interp(at, np.arange(len(widths)), widths)[:, None]
        along = np.gradient(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        across = along[:, ::-1] * (-1, 1) * half
        self._fill(np.concatenate([path + across, (path - across)[::-1]]), colour, inside)
        for end, width in ((path[0], widths[0]), (path[-1], widths[-1])):
            cap = oval((float(end[0]), float(end[1])), width, width, 10)
            self._fill(np.asarray(cap), colour, inside)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """A thin stroke, never thinner than a pixel."""
        path = self._pixels(_through(np.asarray(points, np.float64)))
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.canvas, [path], False, colour, thickness, cv2.LINE_AA, _SHIFT)

    def _fill(self, points: npt.NDArray[np.float64], colour: Colour, inside: bool) -> None:
        path = self._pixels(points)
        if inside:
            left, top = np.maximum(path.min(axis=0) // 2**_SHIFT - 2, 0)
            right, bottom = np.maximum(path.max(axis=0) // 2**_SHIFT + 3, 0)
            part = self.canvas[top:bottom, left:right]
            if part.size:
                drawn = part.copy()
                moved = path - (left * 2**_SHIFT, top * 2**_SHIFT)
                cv2.fillPoly(drawn, [moved.astype(np.int32)], colour, cv2.LINE_AA, _SHIFT)
                here = self.mask[top:bottom, left:right, None] > 127
                np.copyto(part, drawn, where=here)
        else:
            cv2.fillPoly(self.canvas, [path], colour, cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(self.mask, [path], 255, cv2.LINE_AA, _SHIFT)

    def _pixels(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        cos, sin = math.cos(self._angle), math.sin(self._angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]]) + self._centre
        if self._mirror:
            turned = turned * (-1, 1)
        placed = turned * self.scale + self.origin
        return np.asarray(np.round(placed * 2**_SHIFT), np.int32)


def _rounded(points: npt.NDArray[np.float64], steps: int = 6) -> npt.NDArray[np.float64]:
    """A closed Catmull-Rom curve through points."""
    around = np.concatenate([points[-1:], points, points[:2]])
    return _curve(around[:-3], points, around[2:-1], around[3:], steps)


def _through(points: npt.NDArray[np.float64], steps: int = 8) -> npt.NDArray[np.float64]:
    """An open Catmull-Rom curve through points."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    curve = _curve(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], steps)
    return np.concatenate([curve, points[-1:]])


def _curve(
    p0: npt.NDArray[np.float64],
    p1: npt.NDArray[np.float64],
    p2: npt.NDArray[np.float64],
    p3: npt.NDArray[np.float64],
    steps: int,
) -> npt.NDArray[np.float64]:
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )  # fmt: skip
    flat: npt.NDArray[np.float64] = curve.reshape(-1, 2)
    return flat
