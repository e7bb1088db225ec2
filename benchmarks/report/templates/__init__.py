"""The templates of the reports, and what they format values with."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup

from benchmarks.report.chart_scale import px, tick_text
from benchmarks.report.text import figure, markdown_table, milliseconds


@functools.cache
def get(file: str) -> Template:
    """Load a template of this folder."""
    environment = Environment(
        loader=PackageLoader("benchmarks.report"),
        autoescape=select_autoescape(["html", "svg"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    functions = (
        px, tick_text, path_data, family, figure, milliseconds, sentence, shade, many, part, name,
        markdown_table,
    )  # fmt: skip
    environment.filters |= {one.__name__: one for one in functions}
    environment.filters["pairs"] = itertools.pairwise
    return environment.get_template(file)


def path_data(found: Sequence[tuple[float, float]]) -> str:
    """Format the corners of a path for its attribute `d`."""
    return " L".join(f"{px(x)} {px(y)}" for x, y in found)


def family(row: Mapping[str, Any]) -> str:
    """Return the colour class of a row: `torch`, or the precision of the file."""
    return "torch" if row["engine"] == "pytorch" else str(row["precision"])


def shade(found: Mapping[str, float]) -> float:
    """Return a cell's opacity: full at ten points below the reference, none for chance."""
    return min(1.0, -10 * found["difference"]) * 0.55 if found["difference_high"] < 0 else 0.0


def part(shown: int, count: int) -> str:
    """Format `3 images`, or `200 of 317 images` where not all are shown."""
    words = many(count, "image")
    return words if shown == count else f"{shown:,} of {words}"


def many(count: int, noun: str) -> str:
    """Format a count: `1 image`, `2 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sentence(words: str) -> str:
    """Format words as a sentence."""
    return words[:1].upper() + words[1:] + "."


def name(row: str) -> Markup:
    """Format the name of a row, with a possible line break before `@`."""
    return Markup("<wbr>@").join(str(row).split("@"))
