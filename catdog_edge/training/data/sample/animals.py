"""Bodies of the drawn sample: four poses, each with a head on it.

One unit is half the width of a head, y points down, and the head's centre is near (0, 0).
"""

from __future__ import annotations

import numpy as np

from catdog_edge.training.data.sample.heads import Face, Look, draw_head
from catdog_edge.training.data.sample.pen import Colour, Pen, Points, mix, oval


def portrait(rng: np.random.Generator, kind: str, look: Look, pen: Pen) -> Face:
    """Head and shoulders."""
    wide = 1.25 if kind == "cat" else 1.5
    shoulders: Points = [
        (-0.55, 0.3), (0.55, 0.3), (0.8, 1.0), (wide, 1.7), (wide + 0.3, 3.2),
        (-wide - 0.3, 3.2), (-wide, 1.7), (-0.8, 1.0),
    ]  # fmt: skip
    pen.blob(shoulders, look.coat)
    _markings(rng, look, pen, (0, 2.1), 1.2, 0.9)
    if look.bib:
        pen.blob([(-0.4, 0.8), (0.4, 0.8), (0.5, 1.9), (0, 2.6), (-0.5, 1.9)], look.light)
    return draw_head(rng, kind, look, pen, (0.0, 0.0))


def _sitting(rng: np.random.Generator, kind: str, look: Look, pen: Pen) -> Face:
    cat = kind == "cat"
    hip, chest = (1.05, 0.62) if cat else (1.0, 0.78)
    _tail(rng, kind, look, pen, (0.8, 2.9), sitting=True)
    for side in (-1, 1):
        pen.blob(oval((side * hip * 0.78, 2.75), 0.55, 0.62), mix(look.coat, look.dark, 0.12))
        pen.blob(oval((side * hip * 1.0, 3.2), 0.42, 0.17), _paw(look))
    pen.blob(
        [(-0.4, 0.5), (0.4, 0.5), (chest, 1.3), (hip, 2.5), (0.85, 3.2), (-0.85, 3.2),
         (-hip, 2.5), (-chest, 1.3)],
        look.coat,
    )  # fmt: skip
    _markings(rng, look, pen, (0, 2.2), 0.9, 1.0)
    if look.bib:
        pen.blob([(-0.4, 0.8), (0.4, 0.8), (0.42, 1.7), (0, 2.3), (-0.42, 1.7)], look.light)
    leg = 0.2 if cat else 0.25
    for side in (-1, 1):
        pen.blob(
            [(side * 0.42 - leg, 1.7), (side * 0.42 + leg, 1.7), (side * 0.4 + leg, 3.15),
             (side * 0.4 - leg, 3.15)],
            mix(look.coat, look.light, 0.1),
        )  # fmt: skip
        pen.line([(side * 0.4 - side * leg, 2.0), (side * 0.4 - side * leg, 3.1)], 0.035, look.dark)
        pen.blob(oval((side * 0.42, 3.22), leg * 1.35, 0.17), _paw(look))
    return draw_head(rng, kind, look, pen, (0.0, 0.0))


def _standing(rng: np.random.Generator, kind: str, look: Look, pen: Pen) -> Face:
    cat = kind == "cat"
    ground = 3.1 if cat else 3.3
    back = 1.0 if cat else 0.85
    far = mix(look.coat, look.dark, 0.45)
    leg = 0.2 if cat else 0.22
    stride = float(rng.uniform(0.05, 0.4))
    _tail(rng, kind, look, pen, (3.35, back + 0.15), sitting=False)
    for x in (0.45 + stride, 2.95 - stride):
        _leg(pen, x, 1.7, ground - 0.1, leg, far, mix(_paw(look), far, 0.5))
    belly = 2.15 if cat else 1.75
    pen.blob(
        [(-0.1, back + 0.3), (0.7, back - 0.05), (2.0, back + 0.08), (3.2, back),
         (3.55, back + 0.6), (3.2, 2.05), (2.3, belly), (0.9, 2.25), (0.0, 1.9)],
        look.coat,
    )  # fmt: skip
    pen.blob([(-0.5, 0.1), (0.6, 0.0), (1.2, back + 0.2), (0.7, 2.0), (-0.1, 1.8)], look.coat)
    _markings(rng, look, pen, (1.8, back + 0.5), 1.6, 0.7)
    if look.bib:
        pen.blob([(-0.4, 0.7), (0.1, 0.8), (0.5, 1.6), (0.4, 2.1), (-0.05, 1.8)], look.light)
    for x in (0.4 - stride * 0.5, 3.1 + stride * 0.3):
        if x > 2:
            pen.blob(oval((x - 0.05, 1.65), 0.45, 0.6), look.coat)
        _leg(pen, x, 1.7, ground, leg, look.coat, _paw(look))
    return draw_head(rng, kind, look, pen, (-0.35, 0.0))


def _lying(rng: np.random.Generator, kind: str, look: Look, pen: Pen) -> Face:
    _tail(rng, kind, look, pen, (2.75, 1.75), sitting=True)
    pen.blob(
        [(-0.6, 0.6), (0.7, 0.45), (1.7, 0.3 if kind == "cat" else 0.5), (2.8, 0.7), (3.15, 1.5),
         (2.8, 2.05), (0.5, 2.1), (-0.8, 2.0)],
        look.coat,
    )  # fmt: skip
    _markings(rng, look, pen, (1.7, 1.1), 1.2, 0.7)
    pen.blob(oval((2.3, 1.55), 0.75, 0.55), mix(look.coat, look.light, 0.08))
    pen.blob(oval((1.9, 2.03), 0.6, 0.16), _paw(look))
    if look.bib:
        pen.blob(oval((-0.15, 1.3), 0.5, 0.6), look.light)
    long = 0.6 if kind == "cat" else 0.95
    for x in (-0.75, 0.15):
        pen.blob(oval((x - 0.25, 1.95), long, 0.19), mix(look.coat, look.light, 0.1))
        pen.blob(oval((x - 0.2 - long * 0.75, 1.98), 0.27, 0.18), _paw(look))
    return draw_head(rng, kind, look, pen, (-0.15, 0.0))


POSES = (
    # The pose and its box: left, top, right, bottom.
    (portrait, (-1.5, -1.5, 1.5, 2.2)),
    (_sitting, (-1.7, -1.5, 1.9, 3.4)),
    (_standing, (-1.6, -1.5, 4.5, 3.4)),
    (_lying, (-1.9, -1.5, 3.6, 2.2)),
)


def _paw(look: Look) -> Colour:
    return look.light if look.bib else mix(look.coat, look.light, 0.12)


def _leg(
    pen: Pen, x: float, top: float, ground: float, half: float, coat: Colour, paw: Colour
) -> None:
    pen.blob(
        [(x - half * 1.5, top), (x + half * 1.5, top), (x + half, ground - 0.3),
         (x + half, ground), (x - half, ground), (x - half, ground - 0.3)],
        coat,
    )  # fmt: skip
    pen.blob(oval((x - 0.07, ground), half * 1.35, 0.16), paw)


def _tail(
    rng: np.random.Generator,
    kind: str,
    look: Look,
    pen: Pen,
    root: tuple[float, float],
    sitting: bool,
) -> None:
    x, y = root
    bend = float(rng.uniform(-0.3, 0.3))
    if kind == "cat":
        if sitting:
            path = [(x, y), (x + 0.7, y + 0.2), (x + 0.95, y - 0.4), (x + 0.7 + bend, y - 1.2)]
        elif rng.random() < 0.6:
            path = [(x, y), (x + 0.5, y - 0.6), (x + 0.45, y - 1.5), (x + 0.8 + bend, y - 2.1)]
        else:
            path = [(x, y), (x + 0.5, y + 0.7), (x + 0.75, y + 1.3), (x + 1.05, y + 1.2 + bend)]
        widths, end = (0.17, 0.15, 0.14, 0.12), look.dark
    else:
        if sitting:
            path = [(x, y), (x + 0.45, y + 0.1), (x + 0.8, y - 0.2), (x + 0.95, y - 0.6 + bend)]
        elif rng.random() < 0.6:
            path = [(x, y), (x + 0.35, y - 0.4), (x + 0.6, y - 0.9), (x + 0.35 + bend, y - 1.25)]
        else:
            path = [(x, y), (x + 0.4, y + 0.3), (x + 0.6, y + 0.8), (x + 0.8, y + 1.0 + bend)]
        widths, end = (0.24, 0.26, 0.2, 0.07), look.light
    pen.tube(path, widths, mix(look.coat, look.dark, 0.2))
    if look.pattern != "plain" or look.bib:
        tip = [tuple(np.add(path[2], np.subtract(path[3], path[2]) * t)) for t in (0.4, 0.7, 1.0)]
        pen.tube(tip, (*widths[2:], widths[3] * 0.9), end)
    if look.pattern == "stripes":
        for at in (0.8, 1.2, 1.6, 2.0):
            index = int(at)
            here = np.add(path[index], np.subtract(path[index + 1], path[index]) * (at - index))
            pen.blob(oval((float(here[0]), float(here[1])), widths[index] * 0.95, 0.06), look.dark)


def _markings(
    rng: np.random.Generator,
    look: Look,
    pen: Pen,
    centre: tuple[float, float],
    half_width: float,
    half_height: float,
) -> None:
    """Stripes or patches, only where the animal already is."""
    x, y = centre
    if look.pattern == "stripes":
        for step in np.linspace(-1, 1, int(rng.integers(5, 9))):
            at = x + float(step) * half_width
            sway = float(rng.uniform(-0.12, 0.12))
            path = [(at, y - half_height), (at + sway, y), (at - sway, y + half_height * 0.7)]
            pen.tube(path, (0.09, 0.07, 0.02), look.dark, inside=True)
    elif look.pattern == "patches":
        colour = look.light if rng.random() < 0.6 else look.dark
        for _ in range(int(rng.integers(2, 5))):
            spot = (
                x + float(rng.uniform(-1, 1)) * half_width,
                y + float(rng.uniform(-1, 1)) * half_height,
            )
            size = float(rng.uniform(0.25, 0.6))
            points = oval(spot, size, size * float(rng.uniform(0.6, 1.1)), 9)
            wobble = rng.uniform(0.75, 1.25, len(points))
            pen.blob(
                [(spot[0] + (px - spot[0]) * w, spot[1] + (py - spot[1]) * w)
                 for (px, py), w in zip(points, wobble)],
                colour,
                inside=True,
            )  # fmt: skip
