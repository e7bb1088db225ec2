"""Scales of the charts, and numbers as their text."""

from __future__ import annotations

import math
from collections.abc import Sequence


class Scale:
    """Values from `low` to `high` as pixels from `start` to `end`, which may be the smaller one."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside are at the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 7) -> list[float]:
        """Round values inside the scale, at most `most` of them where possible."""
        if not self.log:
            rough = (self.high - self.low) / max(1, most - 1)
            magnitude = 10.0 ** math.floor(math.log10(rough))
            step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            return [round(number * step, 10) for number in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            values = (float(f"{step}e{decade}") for decade in decades for step in steps)
            found = [value for value in values if self.low <= value <= self.high]
            if len(found) <= most:
                break
        return found


def padded(
    values: Sequence[float], share: float = 0.06, *, log: bool = False
) -> tuple[float, float]:
    """Return the ends of a scale that holds all values, with padding at both sides."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** share, 1.05)
        return low / room, high * room
    room = max((high - low) * share, abs(high) * 1e-3, 1e-6)
    return low - room, high + room


def tick_text(value: float) -> str:
    """Format a tick's value without trailing zeros."""
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def px(value: float) -> str:
    """Format a coordinate."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
