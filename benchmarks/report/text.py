"""Figures and tables as text: how many digits, how wide, where a name is cut.

Knows numbers and strings, nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WIDTH = 100
"""Columns of the terminal that every table fits."""

MISSING = "-"


def plain_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH
) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right.

    Where it would be wider than `width`, the names in the first column are cut so that they
    can still be told apart, see `shorten_all`.
    """
    columns = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    gap = "  " if sum(columns) + 2 * (len(columns) - 1) <= width else " "
    over = sum(columns) + len(gap) * (len(columns) - 1) - width
    columns[0] = max(8, columns[0] - max(0, over))
    short = shorten_all([heads[0], *(row[0] for row in rows)], columns[0])

    def line(cells: Sequence[str]) -> str:
        first = short[cells[0]].ljust(columns[0])
        others = (cell.rjust(size) for cell, size in zip(cells[1:], columns[1:], strict=True))
        return gap.join((first, *others)).rstrip()

    return [line(heads), gap.join("-" * size for size in columns), *(line(row) for row in rows)]


def listed(counts: Sequence[int]) -> str:
    """`1`, `1 and 2`, `1, 2 and 4`."""
    words = [f"{count:,}" for count in counts]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def shorten(text: str, width: int, head: int | None = None) -> str:
    """Cut a name behind its first `head` letters (in the middle) where it is too long."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2 if head is None else head
    return text[:head] + "~" + text[len(text) - (width - 1 - head) :]


def shorten_all(names: Sequence[str], width: int) -> dict[str, str]:
    """Cut names that are too long, all at the same place, so that no two become the same.

    Args:
        names: In any number; the same one may come again.
        width: Columns, 8 or more.

    Returns:
        By name, at most `width` columns. The cut is in the middle where that keeps them apart,
        else where most of them stay different; those that do not are numbered, `~2`.
    """
    different = list(dict.fromkeys(names))
    middle = (width - 1) // 2
    heads = sorted(range(1, width - 1), key=lambda head: abs(head - middle))
    best = {name: shorten(name, width) for name in different}
    for head in heads:
        if len(set(best.values())) == len(different):
            return best
        cut = {name: shorten(name, width, head) for name in different}
        if len(set(cut.values())) > len(set(best.values())):
            best = cut
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
    """A text in lines of at most `WIDTH` columns; a word that is longer is cut."""
    lines = [""]
    pieces = (
        word[start : start + WIDTH] for word in text.split() for start in range(0, len(word), WIDTH)
    )
    for word in pieces:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def ratio(value: Mapping[str, float]) -> str:
    """`0.12 (0.11-0.13)`."""
    return f"{figure(value['value'])} ({figure(value['low'])}-{figure(value['high'])})"


def figure(value: float) -> str:
    """Two digits that count, three from 1 on: `0.052`, `0.52`, `1.25`, `12.5`."""
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def milliseconds(value: float) -> str:
    """Three digits that count: `0.05`, `1.23`, `12.3`, `123`."""
    size = abs(value)
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:.0f}"


def megabytes(value: int, digits: int) -> str:
    """Millions of bytes."""
    return f"{value / 1e6:.{digits}f}"


def percent(value: float) -> str:
    """`98.71 %` without the sign: the heads say what it is."""
    return f"{100 * value:.2f}%"


def points(found: Mapping[str, float]) -> str:
    """A difference of accuracy in percentage points, with its interval."""
    return (
        f"{100 * found['difference']:+.2f} ({100 * found['difference_low']:+.2f} "
        f"{100 * found['difference_high']:+.2f})"
    )


def p_value(value: float) -> str:
    """`0.049`, `<0.001`."""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.9995 else "1"
