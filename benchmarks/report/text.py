"""Numbers, names and tables as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from catdog_edge.system.console import align, widths

WIDTH = 100  # columns of the terminal that every table fits
MISSING = "-"


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table of `WIDTH` columns: the first column left-aligned, the others right-aligned.

    Where it would be wider, names in the first column are shortened, see `abbreviate_all`.
    """
    columns = widths([heads, *rows])
    gap = "  " if sum(columns) + 2 * (len(columns) - 1) <= WIDTH else " "
    columns[0] = max(8, columns[0] - max(0, sum(columns) + len(gap) * (len(columns) - 1) - WIDTH))
    short = abbreviate_all([heads[0], *(row[0] for row in rows)], columns[0])
    head, *lines = ([short[first], *others] for first, *others in (heads, *rows))
    return align([head, ["-" * size for size in columns], *lines], gap)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table: the first column left-aligned, the others right-aligned."""
    head, *lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (heads, *rows))
    rule = "---|" + "---:|" * (len(heads) - 1)
    return "\n".join([f"| {head} |", f"|{rule}", *(f"| {line} |" for line in lines)])


def listed(counts: Sequence[int]) -> str:
    """Join names: `1`, `1 and 2`, `1, 2 and 4`."""
    words = [f"{count:,}" for count in counts]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def few(names: Sequence[str], most: int = 10) -> str:
    """Format the first names of a list and the number of others: `a, b and 298 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def abbreviate(text: str, width: int, head: int | None = None) -> str:
    """Shorten a text to `width` columns: cut after `head` characters, by default in the middle."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2 if head is None else head
    return text[:head] + "~" + text[len(text) - (width - 1 - head) :]


def abbreviate_all(names: Sequence[str], width: int) -> dict[str, str]:
    """Shorten names, all at the same place, to at most `width` columns (8 or more).

    The cut is as near to the middle as keeps most of them distinct; the rest is numbered, `~2`.
    """
    unique = list(dict.fromkeys(names))
    heads = sorted(range(1, width - 1), key=lambda head: abs(head - (width - 1) // 2))
    cuts = ({name: abbreviate(name, width, head) for name in unique} for head in heads)
    best = max(cuts, key=lambda cut: len(set(cut.values())))
    taken: set[str] = set()
    for name, text in best.items():
        number = 2
        while best[name] in taken:
            mark = f"~{number}"
            best[name] = text[: width - len(mark)] + mark
            number += 1
        taken.add(best[name])
    return best


def wrap(text: str) -> list[str]:
    """Wrap a text into lines of at most `WIDTH` columns."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def ratio(value: Mapping[str, float]) -> str:
    """Format a value with its interval: `0.12 (0.11-0.13)`."""
    return f"{figure(value['value'])} ({figure(value['low'])}-{figure(value['high'])})"


def figure(value: float) -> str:
    """Format two significant digits, three from 1 on: `0.052`, `0.52`, `1.25`, `12.5`."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """Format three significant digits: `0.05`, `1.23`, `12.3`, `123`."""
    if value is None:
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percentage(value: float | None) -> str:
    """Format a percentage: `98.71%`."""
    return MISSING if value is None else f"{100 * value:.2f}%"


def points(found: Mapping[str, float]) -> str:
    """Format a difference of accuracy in percentage points, with its interval."""
    return (
        f"{100 * found['difference']:+.2f} ({100 * found['difference_low']:+.2f} "
        f"{100 * found['difference_high']:+.2f})"
    )


def p_value(value: float) -> str:
    """Format a p-value: `0.049`, `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.9995 else "1"
