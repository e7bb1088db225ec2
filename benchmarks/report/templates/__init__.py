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
    """A template of this folder."""
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
    """The corners of a path, as its `d` takes them."""
    return " L".join(f"{px(x)} {px(y)}" for x, y in found)


def family(row: Mapping[str, Any]) -> str:
    """The colour of a row: `torch`, or the precision of the file."""
    return "torch" if row["engine"] == "pytorch" else str(row["precision"])


def shade(found: Mapping[str, float]) -> float:
    """Opacity of a cell: full at ten points below the reference, none for what chance explains."""
    return min(1.0, -10 * found["difference"]) * 0.55 if found["difference_high"] < 0 else 0.0


def part(shown: int, count: int) -> str:
    """`3 images`, or `200 of 317 images` where not all are shown."""
    words = many(count, "image")
    return words if shown == count else f"{shown:,} of {words}"


def many(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sentence(words: str) -> str:
    """Words as a sentence."""
    return words[:1].upper() + words[1:] + "."


def name(row: str) -> Markup:
    """The name of a row, which may be broken before `@`."""
    return Markup("<wbr>@").join(str(row).split("@"))
