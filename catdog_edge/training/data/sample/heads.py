"""Heads of the drawn sample: what a cat's and a dog's face, ears and muzzle look like.

A head is drawn in two steps: its fur now, and its face (eyes, nose, mouth, whiskers) later,
when the fur has been roughened, so that the face stays sharp. Knows nothing of bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from catdog_edge.training.data.sample.pen import Colour, Pen, Points, mix, oval

Face = Callable[[Pen], None]
"""Draws eyes, nose, mouth and whiskers."""

_COATS: tuple[tuple[Colour, Colour], ...] = (
    # Coat and its light parts (muzzle, chest, paws), BGR.
    ((52, 118, 205), (190, 222, 245)),  # ginger
    ((48, 50, 56), (120, 125, 132)),  # black
    ((128, 128, 132), (215, 215, 218)),  # grey
    ((70, 100, 140), (175, 200, 222)),  # brown tabby, sable
    ((205, 222, 236), (240, 246, 250)),  # cream
    ((232, 234, 238), (250, 250, 250)),  # white
    ((40, 62, 98), (110, 150, 190)),  # chocolate
    ((110, 165, 212), (215, 235, 248)),  # fawn
    ((105, 92, 84), (200, 195, 190)),  # blue
)
_PATTERNS = {"cat": (0.35, 0.4, 0.1, 0.15), "dog": (0.4, 0.08, 0.37, 0.15)}
"""How often a coat is plain, striped, patched or masked: tabbies are mostly cats, as in life."""

_INK: Colour = (34, 30, 34)


@dataclass(frozen=True)
class Look:
    """What one animal looks like; the same choices for a cat and a dog."""

    coat: Colour
    light: Colour
    dark: Colour
    pattern: str  # plain, stripes, patches or mask
    bib: bool  # light muzzle, chest and paws
    turn: float  # of the head, -1 (left) .. 1 (right)
    tilt: float  # of the head, in radians
    collar: Colour | None


def choose_look(rng: np.random.Generator, kind: str) -> Look:
    """Choose the looks of one animal."""
    coat, light = _COATS[int(rng.integers(len(_COATS)))]
    shift = rng.uniform(-16, 16) + rng.uniform(-6, 6, 3)
    coat = tuple(int(np.clip(c + s, 12, 245)) for c, s in zip(coat, shift))  # type: ignore[assignment]
    collars = ((40, 40, 200), (190, 90, 40), (60, 150, 60), (150, 60, 150), (50, 190, 230))
    return Look(
        coat=coat,
        light=light,
        dark=mix(coat, (15, 18, 25), 0.55),
        pattern=str(rng.choice(["plain", "stripes", "patches", "mask"], p=_PATTERNS[kind])),
        bib=bool(rng.random() < 0.5),
        turn=float(rng.uniform(-1, 1)),
        tilt=float(rng.normal(0, 0.12)),
        collar=collars[int(rng.integers(len(collars)))] if rng.random() < 0.35 else None,
    )


def draw_head(
    rng: np.random.Generator, kind: str, look: Look, pen: Pen, centre: tuple[float, float]
) -> Face:
    """Draw a head and its collar round `centre`; the face is for the caller to draw later."""
    if look.collar is not None:
        x, y = centre
        pen.tube(
            [(x - 0.62, y + 0.72), (x, y + 1.02), (x + 0.62, y + 0.72)], (0.1,) * 3, look.collar
        )
        pen.blob(oval((x, y + 1.14), 0.11, 0.11), (60, 200, 235))
    with pen.placed(centre, look.tilt):
        return (_cat_head if kind == "cat" else _dog_head)(rng, look, pen, centre)


def _cat_head(rng: np.random.Generator, look: Look, pen: Pen, centre: tuple[float, float]) -> Face:
    turn = look.turn * 0.2
    tall = float(rng.uniform(1.3, 1.52))
    for side in (-1, 1):
        lean = float(rng.uniform(-0.06, 0.08))
        outer = 0.98 - 0.14 * turn * side
        ear: Points = [
            (side * 0.22, -0.68), (side * (0.6 + lean), -tall), (side * (0.7 + lean), -tall + 0.03),
            (side * outer, -0.25), (side * 0.6, -0.35),
        ]  # fmt: skip
        shade = look.dark if look.pattern == "mask" else look.coat
        pen.shape(ear, shade)
        inner: Points = [
            (side * 0.36, -0.68), (side * (0.63 + lean), -tall + 0.18), (side * (outer - 0.1), -0.4)
        ]  # fmt: skip
        pen.shape(inner, mix((150, 150, 225), shade, 0.35))
    skull: Points = [
        (0, -0.82), (0.5, -0.76), (0.86, -0.4), (1.0, 0.1), (0.94, 0.42), (0.55, 0.76),
        (0, 0.88), (-0.55, 0.76), (-0.94, 0.42), (-1.0, 0.1), (-0.86, -0.4), (-0.5, -0.76),
    ]  # fmt: skip
    pen.blob(skull, look.coat)
    if look.pattern == "stripes":
        for x in (-0.3, 0.0, 0.3):
            pen.tube([(x * 1.3 + turn, -0.8), (x + turn, -0.42)], (0.07, 0.03), look.dark)
        for side in (-1, 1):
            for y in (0.05, 0.28):
                pen.tube([(side * 0.98, y), (side * 0.68, y + 0.06)], (0.05, 0.02), look.dark)
    elif look.pattern == "patches":
        side = 1 if rng.random() < 0.5 else -1
        pen.blob(oval((side * 0.5, -0.3), 0.5, 0.5), look.light, inside=True)
    elif look.pattern == "mask":
        pen.blob(oval((turn, 0.25), 0.55, 0.55), mix(look.dark, look.coat, 0.25))
    if look.bib:
        pen.blob([(turn, -0.35), (turn + 0.5, 0.6), (turn, 0.86), (turn - 0.5, 0.6)], look.light)
    for side in (-1, 1):
        puff = mix(look.light, look.coat, 0.0 if look.bib else 0.5)
        pen.blob(oval((turn * 1.5 + side * 0.17, 0.42), 0.25, 0.2), puff)
    pen.blob(oval((turn * 1.5, 0.62), 0.16, 0.14), mix(look.light, look.coat, 0.4))
    iris = ((70, 190, 170), (40, 170, 220), (200, 160, 80), (80, 200, 120), (40, 130, 200))[
        int(rng.integers(5))
    ]
    slit = float(rng.uniform(0.035, 0.11))
    open_ = float(rng.uniform(0.13, 0.2))
    nose = (130, 130, 215) if rng.random() < 0.6 else (70, 65, 90)
    pale = sum(look.coat) < 480
    spread = rng.uniform(-0.08, 0.08, (2, 3))
    blink = rng.random() < 0.07

    def face(pen: Pen) -> None:
        with pen.placed(centre, look.tilt):
            for side in (-1, 1):
                x, y = turn + side * 0.41, -0.06
                if blink:
                    arc = [(x - 0.2, y), (x, y + 0.1), (x + 0.2, y)]
                    pen.line(arc, 0.06, _INK)
                    continue
                almond: Points = [
                    (x - side * 0.24, y + 0.05), (x - side * 0.08, y - open_ * 0.8),
                    (x + side * 0.14, y - open_), (x + side * 0.25, y - 0.1),
                    (x + side * 0.1, y + open_ * 0.8), (x - side * 0.12, y + open_ * 0.75),
                ]  # fmt: skip
                rim = [(x + (px - x) * 1.2, y + (py - y) * 1.25) for px, py in almond]
                pen.blob(rim, _INK)
                pen.blob(almond, iris)
                pen.blob(oval((x + turn * 0.15, y), slit, open_ * 0.92), (16, 14, 14))
                pen.blob(oval((x - 0.06, y - 0.07), 0.04, 0.04), (255, 255, 255))
            x = turn * 1.5
            pen.shape([(x - 0.12, 0.22), (x + 0.12, 0.22), (x, 0.35)], nose)
            pen.line([(x, 0.34), (x, 0.44)], 0.03, _INK)
            for side in (-1, 1):
                smile = [(x, 0.44), (x + side * 0.1, 0.53), (x + side * 0.26, 0.48)]
                pen.line(smile, 0.03, _INK)
                for index, rise in enumerate((-0.16, 0.02, 0.2)):
                    away = float(spread[(side + 1) // 2, index])
                    start = (x + side * 0.22, 0.4 + rise * 0.3)
                    end = (x + side * 1.25, 0.34 + rise * 1.5 + away)
                    middle = (x + side * 0.75, 0.33 + rise * 0.9)
                    hair = (235, 235, 235) if pale else (70, 70, 80)
                    pen.line([start, middle, end], 0.014, hair)

    return face


def _dog_head(rng: np.random.Generator, look: Look, pen: Pen, centre: tuple[float, float]) -> Face:
    turn = look.turn * 0.26
    ears = str(rng.choice(["drop", "drop", "fold", "prick"]))
    ear_coat = mix(look.coat, look.dark, float(rng.uniform(0.25, 0.8)))
    long = float(rng.uniform(0.35, 0.95))
    if ears == "prick":
        for side in (-1, 1):
            pen.blob(
                [(side * 0.3, -0.6), (side * 0.42, -1.2), (side * 0.6, -1.42), (side * 0.76, -1.1),
                 (side * 0.8, -0.4)],
                ear_coat,
            )  # fmt: skip
            pen.blob(
                [(side * 0.46, -0.7), (side * 0.58, -1.2), (side * 0.7, -0.7)],
                mix((140, 140, 200), ear_coat, 0.5),
            )
    wide = float(rng.uniform(0.72, 0.86))
    skull: Points = [
        (0, -0.85), (0.48, -0.8), (wide, -0.35), (wide, 0.1), (0.62, 0.55), (0.3, 0.9),
        (-0.3, 0.9), (-0.62, 0.55), (-wide, 0.1), (-wide, -0.35), (-0.48, -0.8),
    ]  # fmt: skip
    pen.blob(skull, look.coat)
    if look.pattern == "patches":
        side = 1 if rng.random() < 0.5 else -1
        pen.blob(oval((side * 0.42, -0.2), 0.38, 0.45), look.dark, inside=True)
    elif look.pattern == "stripes":
        for x in (-0.35, 0.0, 0.35):
            pen.tube([(x * 1.2 + turn, -0.8), (x + turn, -0.42)], (0.07, 0.03), look.dark)
    if look.bib:
        pen.tube(
            [(turn * 0.5, -0.8), (turn, -0.2), (turn * 1.4, 0.3)], (0.1, 0.12, 0.3), look.light
        )
    if ears != "prick":
        for side in (-1, 1):
            if ears == "drop":
                flap: Points = [
                    (side * 0.42, -0.78), (side * 0.8, -0.72), (side * 1.12, -0.2),
                    (side * 1.16, long * 0.6), (side * 0.98, long), (side * 0.76, long * 0.5),
                    (side * 0.7, -0.25),
                ]  # fmt: skip
            else:
                flap = [
                    (side * 0.3, -0.74), (side * 0.62, -1.12), (side * 0.95, -0.98),
                    (side * 1.12, -0.45), (side * 0.95, -0.28), (side * 0.8, -0.5),
                ]  # fmt: skip
            pen.blob(flap, ear_coat)
            pen.line([*flap[:-1][:1], flap[-1], flap[-2]], 0.03, look.dark)
    snout = look.light if look.bib else mix(look.coat, look.light, 0.45)
    if look.pattern == "mask":
        snout = mix(look.dark, look.coat, 0.2)
    x, drop = turn * 1.7, float(rng.uniform(0.0, 0.14))
    broad = float(rng.uniform(0.4, 0.52))
    pen.blob(
        [(turn - 0.25, -0.05), (turn + 0.25, -0.05), (x + broad, 0.45 + drop),
         (x + broad * 0.85, 0.8 + drop), (x, 0.92 + drop), (x - broad * 0.85, 0.8 + drop),
         (x - broad, 0.45 + drop)],
        snout,
    )  # fmt: skip
    tongue = rng.random() < 0.5
    iris = ((40, 70, 110), (30, 50, 80), (60, 100, 150), (190, 150, 90))[int(rng.integers(4))]
    brow = rng.random() < 0.4

    def face(pen: Pen) -> None:
        with pen.placed(centre, look.tilt):
            for side in (-1, 1):
                at = (turn + side * 0.36, -0.14)
                if brow:
                    above = (at[0] + side * 0.02, at[1] - 0.27)
                    pen.blob(oval(above, 0.12, 0.07), mix(look.light, look.coat, 0.3))
                pen.blob(oval(at, 0.16, 0.145), _INK)
                pen.blob(oval(at, 0.12, 0.115), iris)
                pen.blob(oval((at[0] + turn * 0.1, at[1]), 0.075, 0.08), (14, 12, 12))
                pen.blob(oval((at[0] - 0.045, at[1] - 0.05), 0.035, 0.035), (255, 255, 255))
            y = 0.26 + drop
            if tongue:
                pen.blob(
                    [(x - 0.16, y + 0.48), (x + 0.16, y + 0.48), (x + 0.19, y + 0.8),
                     (x, y + 0.98), (x - 0.19, y + 0.8)],
                    (125, 115, 225),
                )  # fmt: skip
                pen.line([(x, y + 0.5), (x, y + 0.85)], 0.025, (95, 85, 190))
            pen.blob(
                [(x - 0.22, y - 0.1), (x, y - 0.15), (x + 0.22, y - 0.1), (x + 0.17, y + 0.1),
                 (x, y + 0.18), (x - 0.17, y + 0.1)],
                (28, 26, 30),
            )  # fmt: skip
            pen.blob(oval((x - 0.06, y - 0.07), 0.07, 0.03), (150, 150, 155))
            pen.line([(x, y + 0.16), (x, y + 0.36)], 0.035, _INK)
            for side in (-1, 1):
                jowl = [(x, y + 0.36), (x + side * 0.17, y + 0.47), (x + side * 0.36, y + 0.36)]
                pen.line(jowl, 0.035, _INK)
                for spot in (0.18, 0.28):
                    pen.blob(oval((x + side * spot, y + 0.22), 0.014, 0.014), look.dark)

    return face
