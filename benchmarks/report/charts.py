"""The charts of `bench.html`: ratios, distributions, accuracy against latency, reliability.

Each is drawn for one width in pixels; the page has a wide and a narrow drawing and shows the one
that fits, so that text is never scaled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.report.svg import (
    Scale,
    circle,
    drawing,
    group,
    line,
    padded,
    path,
    plain,
    rectangle,
    text,
)
from benchmarks.report.tables import bases
from benchmarks.report.text import figure, milliseconds, shorten_all

Row = Mapping[str, Any]

NARROW = 520
"""Below this width the names stand above the marks instead of beside them."""

MIN_ANSWERS = 5
"""A bin of the reliability diagram with fewer answers is left out."""

CHARACTER = 7.0
"""Width of a character of the labels in pixels, on the generous side."""


def family(row: Row) -> str:
    """The colour of a row: `torch`, or the precision of the file."""
    return "torch" if row["engine"] == "pytorch" else str(row["precision"])


def ratios(document: Mapping[str, Any], width: int) -> str:
    """Time of each row over PyTorch's, with its interval, on a log scale."""
    rows = [row for row in document["rows"] if row["name"] != row["ratio"]["to"]]
    if not rows:
        return ""
    frame = _Strips(rows, width, height=30)
    ends = [row["ratio"][end] for row in rows for end in ("low", "high")]
    scale = frame.scale([*ends, 1.0], room_right=102)
    parts = [frame.grid(scale, "times PyTorch's time"), line(*frame.across(scale, 1.0), "one")]
    for row, y in frame.places():
        ratio = row["ratio"]
        x, low, high = (scale(ratio[end]) for end in ("value", "low", "high"))
        tip = (
            f"{row['name']}: {figure(ratio['value'])} times the time of {ratio['to']} "
            f"(95 % interval {figure(ratio['low'])} to {figure(ratio['high'])})"
        )
        mark = line(low, y, high, y, f"whisker stroke-{family(row)}")
        mark += circle(x, y, 5, f"dot fill-{family(row)}")
        gain = 1 / ratio["value"]
        words = f"{gain:.1f}\u00d7 as fast" if gain >= 1 else f"{1 / gain:.1f}\u00d7 the time"
        # In a column of its own: beside the bars it would cross the dashed line.
        mark += text(scale.end + 12, y + 4, words, kind="value")
        parts += [frame.name(row, y), group(mark, tip)]
    return frame.drawn("".join(parts), "Time of each row relative to PyTorch")


def distributions(document: Mapping[str, Any], width: int) -> str:
    """How the calls of each row are spread, on a log scale of milliseconds."""
    rows = document["rows"]
    frame = _Strips(rows, width, height=56)
    shown = [row["latency"]["quantiles_ms"] for row in rows]
    scale = frame.scale([q[place] for q in shown for place in (1, 99)], room_right=12)
    parts = [frame.grid(scale, "milliseconds per call")]
    for row, y in frame.places():
        latency = row["latency"]
        base, tall = y + 18, 30.0
        outline = [(scale(x), base - tall * share) for x, share in density(row, scale)]
        others = ", ".join(
            f"{name} {milliseconds(latency[f'{name}_ms'])}"
            for name in ("p75", "p90", "p95", "p99", "mean")
        )
        words = f"{milliseconds(latency['p50_ms'])} ms"
        tip = f"{row['name']}: p50 {words}, {others}, {latency['calls']:,} calls"
        area = path(
            [(outline[0][0], base), *outline, (outline[-1][0], base)],
            f"ridge fill-{family(row)} stroke-{family(row)}",
            closed=True,
        )
        middle, late = scale(latency["p50_ms"]), scale(latency["p95_ms"])
        area += line(scale.start, base, scale.end, base, "baseline")
        area += line(middle, base - tall - 2, middle, base, "median")
        area += line(late, base - 9, late, base + 3, f"tail stroke-{family(row)}")
        half = len(words) * CHARACTER / 2  # on top of the median, inside the frame
        place = min(max(middle, scale.start + half), scale.end - half)
        area += text(place, base - tall - 6, words, kind="value", anchor="middle")
        parts += [frame.name(row, y), group(area, tip)]
    return frame.drawn("".join(parts), "Distribution of the latency of each row")


def density(row: Row, scale: Scale) -> list[tuple[float, float]]:
    """A smooth outline of a row's calls from its 101 percentiles.

    A Gaussian kernel on the logarithm of the time, Silverman's bandwidth; the highest point
    of each row is 1, so heights of different rows cannot be compared.

    Returns:
        Pairs of milliseconds and height 0..1, from left to right, inside the scale.
    """
    quantiles = np.log(np.maximum(row["latency"]["quantiles_ms"], 1e-6))
    middle = quantiles[1:100]  # the slowest and the fastest call are no part of a shape
    spread = min(middle.std(), (middle[74] - middle[24]) / 1.34) or middle.std()
    least = math.log(scale.high / scale.low) / 150
    width = max(0.9 * spread * len(middle) ** -0.2, least)
    low = max(middle[0] - 3 * width, math.log(scale.low))
    high = min(middle[-1] + 3 * width, math.log(scale.high))
    places = np.linspace(low, high, 160)
    heights = np.exp(-0.5 * ((places[:, None] - middle) / width) ** 2).sum(axis=1)
    heights /= heights.max()
    return [(float(np.exp(x)), float(y)) for x, y in zip(places, heights, strict=True)]


def front(document: Mapping[str, Any], width: int) -> str:
    """Accuracy against latency; the rows that no other row beats in both are joined.

    Rows of batch 1; where there are none, all, and the time is a frame's share of its call.
    """
    rows = [row for row in document["rows"] if row["batch"] == 1] or list(document["rows"])
    times = [per_frame(row) for row in rows]
    height = 360 if width >= NARROW else 330
    left, right, top, bottom = 52.0, width - 16.0, 16.0, height - 46.0
    x = Scale(*padded(times, 0.12, log=True), left, right, log=True)
    bounds = [100 * r["answers"][end] for r in rows for end in ("accuracy_low", "accuracy_high")]
    low, high = padded(bounds)
    y = Scale(max(0.0, low), min(100.0, high), bottom, top)
    parts = []
    for value in y.ticks(6):
        parts += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 8, y(value) + 4, plain(value), kind="tick", anchor="end"),
        ]
    for value in x.ticks(7 if width >= NARROW else 4):
        parts += [
            line(x(value), top, x(value), bottom, "grid"),
            text(x(value), bottom + 18, plain(value), kind="tick", anchor="middle"),
        ]
    parts.append(text(left, height - 8, "milliseconds per frame (p50)", kind="axis"))
    parts.append(text(left + 4, top + 2, "accuracy, %", kind="axis"))
    best = pareto([(t, r["answers"]["accuracy"]) for t, r in zip(times, rows, strict=True)])
    corners: list[tuple[float, float]] = []
    for index in best:
        px = x(times[index])
        py = y(100 * rows[index]["answers"]["accuracy"])
        if corners:
            corners.append((px, corners[-1][1]))
        corners.append((px, py))
    if corners:
        corners.append((right, corners[-1][1]))
        parts.append(path(corners, "front"))
    anchors = []
    short = shorten_all([str(row["name"]) for row in rows], 40 if width >= NARROW else 20)
    for row, time in zip(rows, times, strict=True):
        answers = row["answers"]
        px, py = x(time), y(100 * answers["accuracy"])
        tip = (
            f"{row['name']}: {100 * answers['accuracy']:.2f} % "
            f"({100 * answers['accuracy_low']:.2f} to {100 * answers['accuracy_high']:.2f}) "
            f"in {milliseconds(time)} ms a frame"
        )
        mark = line(
            px, y(100 * answers["accuracy_low"]), px, y(100 * answers["accuracy_high"]),
            f"whisker thin stroke-{family(row)}",
        )  # fmt: skip
        parts.append(group(mark + circle(px, py, 6, f"dot fill-{family(row)}"), tip))
        anchors.append((px, py, short[row["name"]]))
    parts += _labels(anchors, right, top, bottom)
    return drawing(width, height, "".join(parts), "Accuracy against latency")


def per_frame(row: Row) -> float:
    """Milliseconds of a frame: its share of the median call."""
    return float(row["latency"]["p50_ms"]) / int(row["batch"])


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that none beats in both, cheapest first."""
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[index][1] > points[found[-1]][1]:
            found.append(index)
    return found


def _labels(
    anchors: Sequence[tuple[float, float, str]], right: float, top: float, bottom: float
) -> list[str]:
    """Names beside their points, moved up or down where they would cover one another."""
    taken = [(px - 8, px + 8, py + 4) for px, py, _ in anchors]  # the points themselves
    parts = []
    for px, py, words in sorted(anchors):
        wide = len(words) * CHARACTER
        left_side = px + 12 + wide > right
        start = px - 12 - wide if left_side else px + 12

        def free(y: float, start: float = start, wide: float = wide) -> bool:
            inside = top + 16 <= y <= bottom - 6
            return inside and all(
                abs(y - other) >= 16 or start > end + 12 or start + wide + 12 < begin
                for begin, end, other in taken
            )

        shifts = (sign * step for step in range(0, 400, 4) for sign in (-1, 1))
        y = next((py - 12 + shift for shift in shifts if free(py - 12 + shift)), py - 12)
        taken.append((start, start + wide, y))
        edge = px - 9 if left_side else px + 9
        if abs(y - py) > 20:
            parts.append(line(px, py, edge, y - 4, "leader"))
        parts.append(
            text(
                start + wide if left_side else start, y, words, kind="label",
                anchor="end" if left_side else "start",
            )
        )  # fmt: skip
    return parts


def reliability(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A small diagram for each file: accuracy of its answers against their confidence.

    Bins with too few answers to tell an accuracy are left out, and the line is broken there.

    Returns:
        Pairs of the row's base and the drawing.
    """
    rows = bases(document)
    low = 1 / len(document["model"]["labels"])
    bins = {row["base"]: _calibration(row) for row in rows}
    least = min((one["accuracy"] for found in bins.values() for one in found if one), default=low)
    floor = low if least >= low else 0.0  # one scale for all, so that they can be compared
    return [(row["base"], _reliability(row, bins[row["base"]], low, floor)) for row in rows]


def _calibration(row: Row) -> list[Mapping[str, Any] | None]:
    """The bins of a row, `None` for those with too few answers."""
    bins = row["answers"]["calibration"]
    enough = max(MIN_ANSWERS, 0.005 * sum(one["count"] for one in bins))
    return [one if one["count"] >= enough else None for one in bins]


def _reliability(
    row: Row, bins: Sequence[Mapping[str, Any] | None], low: float, floor: float
) -> str:
    size, left, top, bottom = 216.0, 34.0, 12.0, 184.0
    right = size - 8
    x = Scale(low, 1.0, left, right)
    y = Scale(floor, 1.0, bottom, top)
    parts = []
    for value in (floor, (1 + floor) / 2, 1.0):
        parts += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 6, y(value) + 4, f"{100 * value:.0f}", kind="tick", anchor="end"),
        ]
    for value, anchor in ((low, "start"), ((1 + low) / 2, "middle"), (1.0, "end")):
        parts.append(text(x(value), bottom + 16, f"{100 * value:.0f}", kind="tick", anchor=anchor))
    parts.append(line(x(low), y(low), x(1.0), y(1.0), "diagonal"))
    total = sum(one["count"] for one in row["answers"]["calibration"])
    for one, following in itertools.pairwise([*bins, None]):
        if one is None:
            continue
        px, py = x(one["confidence"]), y(one["accuracy"])
        tip = (
            f"{row['base']}: {one['count']:,} answers between {100 * one['low']:.0f} and "
            f"{100 * one['high']:.0f} % sure; {100 * one['confidence']:.1f} % on average, "
            f"{100 * one['accuracy']:.1f} % right"
        )
        radius = 2.5 + 8 * math.sqrt(one["count"] / total)
        parts.append(circle(px, py, radius, f"bubble fill-{family(row)}", tip))
        if following is not None:
            end = (x(following["confidence"]), y(following["accuracy"]))
            parts.append(line(px, py, *end, f"trace stroke-{family(row)}"))
    error = 100 * row["answers"]["expected_calibration_error"]
    parts.append(text(right, bottom - 8, f"ECE {error:.2f} %", kind="value", anchor="end"))
    return drawing(
        size, bottom + 24, "".join(parts), f"Reliability of {row['base']}", "chart small"
    )


class _Strips:
    """A chart with one strip per row, names beside or above the strips, a scale below.

    Args:
        rows: Of the document.
        width: Pixels.
        height: Pixels per strip.
    """

    def __init__(self, rows: Sequence[Row], width: int, height: float) -> None:
        self._rows = rows
        self._width = width
        self._narrow = width < NARROW
        self._strip = height + (18 if self._narrow else 0)
        longest = max(len(row["name"]) for row in rows)
        self._left = 4.0 if self._narrow else min(longest * CHARACTER + 18, width * 0.34)
        self._bottom = 6 + self._strip * len(rows)
        room = width - 22 if self._narrow else self._left - 18
        self._short = shorten_all([str(row["name"]) for row in rows], int(room / CHARACTER))

    def scale(self, values: Sequence[float], room_right: float) -> Scale:
        """A log scale for the strips, with room for a column of text at the right."""
        low, high = padded(values, log=True)
        return Scale(low, high, self._left + 6, self._width - room_right, log=True)

    def places(self) -> list[tuple[Row, float]]:
        """Each row and the height at which its marks are centred."""
        first = 6 + self._strip - (self._strip - 18 if self._narrow else self._strip) / 2
        return [(row, first + self._strip * index) for index, row in enumerate(self._rows)]

    def above(self, y: float) -> float:
        """The line of text over a strip; on narrow screens the names begin it."""
        return y - (self._strip - 18) / 2 - 6 if self._narrow else y - 18

    def name(self, row: Row, y: float) -> str:
        chip, words = f"chip fill-{family(row)}", self._short[row["name"]]
        if self._narrow:
            top = self.above(y)
            return rectangle(2, top - 9, 10, 10, chip) + text(18, top, words, kind="label")
        return rectangle(0, y - 6, 10, 10, chip) + text(16, y + 4, words, kind="label")

    def across(self, scale: Scale, value: float) -> tuple[float, float, float, float]:
        return scale(value), 6.0, scale(value), self._bottom

    def grid(self, scale: Scale, words: str) -> str:
        parts = []
        for value in scale.ticks(4 if self._narrow else 8):
            parts.append(line(*self.across(scale, value), "grid"))
            parts.append(
                text(scale(value), self._bottom + 18, plain(value), kind="tick", anchor="middle")
            )
        parts.append(text(scale.start, self._bottom + 38, words, kind="axis"))
        return "".join(parts)

    def drawn(self, content: str, label: str) -> str:
        return drawing(self._width, self._bottom + 46, content, label)
