"""The results on each source of images, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from catdog_edge.errors import escaped
from catdog_edge.system.console import align
from catdog_edge.training.array_types import Flags
from catdog_edge.training.evaluation.classification_report import WORST
from catdog_edge.training.evaluation.metrics import wilson
from catdog_edge.training.evaluation.rejection import Groups, split_groups

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class SourceResult:
    """Results of a model on the images of one source: proportions with 95 % Wilson intervals."""

    name: str  # `SOURCE` for the classes, `KIND/SOURCE` for negatives
    images: int
    left_out: bool  # of training (`train --leave-out`)
    accuracy: Interval | None  # of the top class; `None` for negatives
    answered: Interval | None  # with a class; `None` where the model never answers `neither`


def class_results(
    right: Flags, names: Sequence[str], left_out: Sequence[str] = ()
) -> tuple[SourceResult, ...]:
    """Return the accuracy on each source of the classes, sorted by name.

    Args:
        right: `bool [N]`, whether the top class of an image is right.
        names: The source of each image.
        left_out: Sources that the model was not trained on.
    """
    groups = split_groups(right, names)
    return tuple(SourceResult(n, len(r), n in left_out, share(r), None) for n, r in groups.items())


def with_answered(
    results: Sequence[SourceResult], scores: Groups, threshold: float
) -> tuple[SourceResult, ...]:
    """Add the share of each source that is answered with a class, from scores by source."""
    return tuple(replace(one, answered=share(scores[one.name] >= threshold)) for one in results)


def share(flags: Flags) -> Interval:
    """Return the share of `True` in `bool [N]`, with its interval."""
    count = int(np.sum(flags))
    return count / len(flags), *wilson(count, len(flags))


def source_lines(sources: Sequence[SourceResult], complete: str) -> list[str]:
    """Format a table; of many sources the worst, and a line that `complete` has all of them."""

    def right(one: SourceResult) -> float:
        return one.accuracy[0] if one.accuracy else 1 - one.answered[0] if one.answered else 1

    shown = sorted(sources, key=right)[:WORST] if len(sources) > 2 * WORST else sources
    rows = [["source", "images", "top class right, %", "answered, %", ""]]
    for one in shown:
        shares = map(_interval, (one.accuracy, one.answered))
        note = "left out of training" * one.left_out
        rows.append([escaped(one.name), f"{one.images:,}", *shares, note])
    lines = align(rows)
    if len(shown) < len(sources):
        lines.append(f"the worst {len(shown)} of {len(sources):,} sources; {complete} has all")
    return lines


def _interval(value: Interval | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (100 * one for one in value)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"
