"""The geometry of the charts of `bench.html`, which `templates/charts.svg` draws.

Each is drawn for one width in pixels; the page shows the wide or the narrow drawing, so text is
never scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmarks.report import templates
from benchmarks.report.chart_scale import Scale, padded
from benchmarks.report.tables import Document, bases, reference_name
from benchmarks.report.text import abbreviate_all, milliseconds

NARROW = 520  # below this width the names stand above the marks instead of beside them
NAMED = 8  # points up to which names stand beside them
MIN_ANSWERS = 5  # a bin of the reliability diagram with fewer answers is left out
CHARACTER = 7.0  # width of a character of the labels in pixels, on the generous side


def _drawn(chart: str, *arguments: Any) -> Markup:
    return Markup(getattr(templates.get("charts.svg").module, chart)(*arguments))


def ratios(document: Document, width: int) -> Markup:
    """Time of each row over the reference's, with its interval, on a log scale."""
    rows = [row for row in document["rows"] if row["name"] != row["ratio"]["to"]]
    if not rows:
        return Markup()
    strips = _Strips(rows, width, height=30)
    ends = [row["ratio"][end] for row in rows for end in ("low", "high")]
    scale = strips.scale([*ends, 1.0], room_right=102)
    return _drawn("ratios", strips, scale, reference_name(document))


def distributions(document: Document, width: int) -> Markup:
    """Draw the distribution of the calls of each row, on a log scale of milliseconds."""
    rows, tall = document["rows"], 30.0
    strips = _Strips(rows, width, height=56)
    shown = [row["latency"]["quantiles_ms"] for row in rows]
    scale = strips.scale([q[place] for q in shown for place in (1, 99)], room_right=12)
    shapes = []
    for row, y in strips.places():
        base = y + 18
        outline = [(scale(x), base - tall * share) for x, share in density(row, scale)]
        median = f"{milliseconds(row['latency']['p50_ms'])} ms"
        half = len(median) * CHARACTER / 2  # on top of its line, inside the frame
        x = min(max(scale(row["latency"]["p50_ms"]), scale.start + half), scale.end - half)
        closed = [(outline[0][0], base), *outline, (outline[-1][0], base)]
        marks = {"row": row, "y": y, "x": x, "median": median}
        shapes.append({**marks, "base": base, "tall": tall, "outline": closed})
    return _drawn("distributions", strips, scale, shapes)


def density(row: Mapping[str, Any], scale: Scale) -> list[tuple[float, float]]:
    """Estimate the density of a row's calls from its 101 percentiles, inside the scale.

    A Gaussian kernel on the logarithm of the time, Silverman's bandwidth. Returns pairs of
    milliseconds and height; the highest point of each row is 1.
    """
    quantiles = np.log(np.maximum(row["latency"]["quantiles_ms"], 1e-6))
    middle = quantiles[1:100]  # the slowest and the fastest call are no part of a shape
    spread = min(middle.std(), (middle[74] - middle[24]) / 1.34) or middle.std()
    width = max(0.9 * spread * len(middle) ** -0.2, math.log(scale.high / scale.low) / 150)
    low = max(middle[0] - 3 * width, math.log(scale.low))
    places = np.linspace(low, min(middle[-1] + 3 * width, math.log(scale.high)), 160)
    heights = np.exp(-0.5 * ((places[:, None] - middle) / width) ** 2).sum(axis=1)
    heights /= heights.max()
    return [(float(np.exp(x)), float(y)) for x, y in zip(places, heights, strict=True)]


def pareto_chart(document: Document, width: int) -> Markup:
    """Draw accuracy against latency; the rows that no other row beats in both are joined.

    Rows of batch 1; where there are none, all, and the time is a frame's share of its call. Where
    there is no room for names beside the points, the points are numbered, with a key below.
    """
    rows = [row for row in document["rows"] if row["batch"] == 1] or list(document["rows"])
    rows.sort(key=per_frame)
    times = [per_frame(row) for row in rows]
    narrow = width < NARROW
    height = 330 if narrow else 360
    x = Scale(*padded(times, 0.12, log=True), 52.0, width - 16.0, log=True)
    bounds = [100 * r["answers"][end] for r in rows for end in ("accuracy_low", "accuracy_high")]
    low, high = padded(bounds)
    y = Scale(max(0.0, low), min(100.0, high), height - 46.0, 26.0)
    accuracy = [row["answers"]["accuracy"] for row in rows]
    places = [(x(time), y(100 * share)) for time, share in zip(times, accuracy, strict=True)]
    best = [places[index] for index in pareto(list(zip(times, accuracy, strict=True)))]
    ends = [px for px, _ in best[1:]] + [x.end]  # a step from each to the next
    corners = [
        place for (px, py), end in zip(best, ends, strict=True) for place in ((px, py), (end, py))
    ]
    short = abbreviate_all([str(row["name"]) for row in rows], 40)
    words, key = [short[row["name"]] for row in rows], []
    if narrow or len(rows) > NAMED:
        columns = max(1, width // 300)
        for number, (row, name) in enumerate(zip(rows, words, strict=True)):
            down, across = divmod(number, columns)
            place = (across * width / columns, height + 20.0 + 20 * down)
            key.append({"row": row, "place": place, "words": f"{number + 1}  {name}"})
        words = [str(number) for number in range(1, len(rows) + 1)]
        height += 20 * -(-len(rows) // columns) + 10
    anchors = [(*place, word) for place, word in zip(places, words, strict=True)]
    points = list(zip(rows, times, strict=True))
    labels = _labels(anchors, x, y, above=bool(key))
    return _drawn("pareto_chart", width, height, x, y, narrow, points, corners, labels, key)


def per_frame(row: Mapping[str, Any]) -> float:
    """Return the milliseconds of a frame: its share of the median call."""
    return float(row["latency"]["p50_ms"]) / int(row["batch"])


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, gain) that no other beats in both, cheapest first."""
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[index][1] > points[found[-1]][1]:
            found.append(index)
    return found


def _labels(
    anchors: Sequence[tuple[float, float, str]], x: Scale, y: Scale, above: bool
) -> Iterator[dict[str, Any]]:
    """Place names beside or above their points, moved up or down where they would overlap."""
    gap = 3 if above else 12
    taken = [(px - 8, px + 8, py + 4) for px, py, _ in anchors]  # the points themselves
    for at, py, words in sorted(anchors):
        wide = len(words) * CHARACTER
        side = 0 if above else -1 if at + 12 + wide > x.end else 1
        near = -wide / 2 if above else 12
        left, right = sorted((at + (side or 1) * near, at + (side or 1) * (near + wide)))

        def free(place: float, left: float = left, right: float = right) -> bool:
            return y.end + 16 <= place <= y.start - 6 and all(
                abs(place - other) >= 16 or left > end + gap or right + gap < begin
                for begin, end, other in taken
            )

        shifts = (sign * step - 12 for step in range(0, 400, 4) for sign in (-1, 1))
        place = next((py + shift for shift in shifts if free(py + shift)), py - 12)
        taken.append((left, right, place))
        yield {
            "x": at + side * 12,
            "y": place,
            "words": words,
            "anchor": ("middle", "start", "end")[side],
            "leader": (at, py, at + side * 9, place - 4) if abs(place - py) > 20 else None,
        }


def reliability(document: Document) -> list[tuple[str, Markup]]:
    """Draw for each file a small diagram: accuracy of its answers against their confidence.

    Bins with too few answers to tell an accuracy are left out, and the line is broken there.
    """
    low, total = 1 / len(document["model"]["labels"]), document["data"]["pictures"]
    enough = max(MIN_ANSWERS, 0.005 * total)
    shown = [
        (row, [one if one["count"] >= enough else None for one in row["answers"]["calibration"]])
        for row in bases(document)
    ]
    least = min((one["accuracy"] for _, bins in shown for one in bins if one), default=low)
    x = Scale(low, 1.0, 34.0, 208.0)
    # One scale for all, so that they can be compared.
    y = Scale(low if least >= low else 0.0, 1.0, 184.0, 12.0)
    return [(row["base"], _drawn("reliability", row, x, y, bins, total)) for row, bins in shown]


class _Strips:
    """A chart with one strip of `height` per row, names beside or above them, a scale below."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], width: int, height: float) -> None:
        self._rows = rows
        self.width = width
        self.narrow = width < NARROW
        self._strip = height + (18 if self.narrow else 0)
        longest = max(len(row["name"]) for row in rows)
        self._left = 4.0 if self.narrow else min(longest * CHARACTER + 18, width * 0.34)
        self.bottom = 6 + self._strip * len(rows)
        room = width - 22 if self.narrow else self._left - 18
        self.short = abbreviate_all([str(row["name"]) for row in rows], int(room / CHARACTER))

    def scale(self, values: Sequence[float], room_right: float) -> Scale:
        """Return a log scale for the strips, with room for a column of text at the right."""
        low, high = padded(values, log=True)
        return Scale(low, high, self._left + 6, self.width - room_right, log=True)

    def places(self) -> list[tuple[Mapping[str, Any], float]]:
        """Yield each row and the height at which its marks are centred."""
        first = 6 + self._strip - (self._strip - 18 if self.narrow else self._strip) / 2
        return [(row, first + self._strip * index) for index, row in enumerate(self._rows)]

    def chip(self, y: float) -> tuple[float, float]:
        """Return the upper left corner of the colour before a row's name."""
        return (2.0, y - (self._strip - 18) / 2 - 15) if self.narrow else (0.0, y - 6)
