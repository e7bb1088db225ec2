"""What was measured, for people and for programs: a table, `bench.json`, `.csv`, `.md`.

Knows the document that `run` makes (its keys are in docs/bench.md), nothing of how it was
measured. The page is made by `html`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catdog_edge.files import write_text

SCHEMA = 1
"""Version of the document in `bench.json`. Raised when a reader of the old one would misread."""

DOCUMENT = "bench.json"
SHEET = "bench.csv"
TEXT = "bench.md"
PAGE = "bench.html"
FLIPS = "bench-flips.csv"

WIDTH = 100
"""Columns of the terminal that every table fits."""

MISSING = "-"

Document = Mapping[str, Any]
Table = tuple[str, list[str], list[list[str]]]
"""Title, heads, rows; the first column is a name, the others are figures."""


def tables(document: Document, *, brief: bool = False) -> list[Table]:
    """The document as tables of text.

    Args:
        document: What `bench.json` holds.
        brief: Leave out what a terminal has no room for.

    Returns:
        Latency, answers, stages and fresh processes; corruptions and originals where they
        were measured.
    """
    found = [_latency(document), _answers(document, brief)]
    found += [table for table in (_fresh(document), _corruptions(document)) if table is not None]
    if document["originals"] is not None:
        found.append(_originals(document["originals"]))
    if document["loadgen"] is not None:
        found.append(_loadgen(document["loadgen"]))
    return found


def _latency(document: Document) -> Table:
    rows = []
    for row in document["rows"]:
        latency = row["latency"]
        rows.append(
            [
                row["name"],
                ratio(row["ratio"]) if row["name"] != row["ratio"]["to"] else "1",
                milliseconds(latency["p50_ms"]),
                milliseconds(latency["p95_ms"]),
                milliseconds(latency["p99_ms"]),
                milliseconds(latency["mean_ms"]),
                milliseconds(latency["std_ms"]),
                f"{latency['pictures_per_second']:,.0f}",
                megabytes(row["size_bytes"], 2),
            ]
        )
    heads = ["row", "time / PyTorch's", "p50 ms", "p95", "p99", "mean", "sd", "pict./s", "MB"]
    return "Latency: a frame to its probabilities", heads, rows


def _answers(document: Document, brief: bool) -> Table:
    rows = []
    for row in bases(document):
        answers = row["answers"]
        same = row["is_reference"]
        rows.append(
            [
                row["base"],
                percent(answers["accuracy"]),
                f"{100 * answers['accuracy_low']:.1f}-{100 * answers['accuracy_high']:.1f}",
                MISSING if same else points(answers),
                MISSING if same else p_value(answers["mcnemar_p"]),
                MISSING if same else percent(answers["agreement"]),
                MISSING if same else f"{answers['flips']:,}",
                MISSING if same else f"{answers['max_difference']:.1e}",
                MISSING if same else f"{answers['mean_difference']:.1e}",
                percent(answers["expected_calibration_error"]),
            ]
        )
    heads = [
        "row", "accuracy", "95 %", "points to PyTorch", "p", "agree", "flips", "max dp", "mean",
        "ECE",
    ]  # fmt: skip
    if brief:
        mean = heads.index("mean")
        del heads[mean]
        for figures in rows:
            del figures[mean]
    pictures = f"{document['data']['pictures']:,} test pictures"
    return f"Answers: batch 1, on {pictures}", heads, rows


def _fresh(document: Document) -> Table | None:
    rows = []
    for row in document["rows"]:
        cold, stages = row["cold"], row["stages_ms"]
        if cold is None and stages is None:
            continue
        figures = [row["name"]]
        figures += (
            [MISSING] * 4
            if cold is None
            else [
                f"{cold['first_answer_s']:.2f}",
                milliseconds(1e3 * cold["load_s"]),
                megabytes(cold["peak_rss_bytes"], 0),
                milliseconds(cold["cpu_ms"]),
            ]
        )
        figures += (
            [MISSING] * 4
            if stages is None
            else [milliseconds(stages[name]) for name in ("decode", "resize", "session", "rest")]
        )
        rows.append(figures)
    if not rows:
        return None
    heads = [
        "row", "1st answer s", "load ms", "peak MB", "CPU ms", "decode", "resize", "session",
        "rest",
    ]  # fmt: skip
    return "A fresh process, and the stages of a call in milliseconds", heads, rows


def _corruptions(document: Document) -> Table | None:
    spoiled = document["corruptions"]
    if spoiled is None:
        return None
    results = spoiled["results"]
    rows = [
        [base, *(_accuracy_and_agreement(by_row[base], base) for by_row in results.values())]
        for base in results["clean"]
    ]
    title = (
        f"Spoiled pictures: accuracy / agreement with PyTorch, in %, on {spoiled['pictures']} "
        "test pictures"
    )
    return title, ["row", *results], rows


def _originals(originals: Mapping[str, Any]) -> Table:
    rows = [
        [
            base,
            percent(found["accuracy"]),
            points(found),
            percent(found["agreement"]),
            f"{found['flips']:,}",
            f"{found['max_difference']:.1e}",
        ]
        for base, found in originals["rows"].items()
    ]
    title = (
        f"{originals['pictures']:,} pictures of {originals['name']}, about "
        f"{originals['median_width']}x{originals['median_height']}"
    )
    return title, ["row", "accuracy", "points to PyTorch", "agree", "flips", "max dp"], rows


def _loadgen(loadgen: Mapping[str, Any]) -> Table:
    heads = ["row", "p50 ms", "p90", "p99", "mean", "per second", "result"]
    rows = []
    for name, found in loadgen["rows"].items():
        times = (found.get(f"{which}_ns") for which in ("p50", "p90", "p99", "mean"))
        speed = found.get("samples_per_second") or found.get("queries_per_second")
        rows.append(
            [
                name,
                *(MISSING if one is None else milliseconds(one / 1e6) for one in times),
                MISSING if speed is None else f"{speed:,.1f}",
                "valid" if found["valid"] else "INVALID",
            ]
        )
    title = (
        f"LoadGen {loadgen['loadgen']}, {loadgen['scenario']}, at least {loadgen['seconds']:g} s a "
        "row"
    )
    return title, heads, rows


def _accuracy_and_agreement(found: Mapping[str, float], base: str) -> str:
    accuracy = f"{100 * found['accuracy']:.1f}"
    return accuracy if base == "pytorch" else f"{accuracy}/{100 * found['agreement']:.0f}"


def bases(document: Document) -> list[Mapping[str, Any]]:
    """The first row of each base: one for each file and provider, whatever threads and batch."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in document["rows"]:
        found.setdefault(row["base"], row)
    return list(found.values())


def terminal(document: Document, folder: Path) -> str:
    """The report for a terminal of `WIDTH` columns."""
    lines: list[str] = []
    if document["noise"]:
        lines += wrap("NOISY RUN: " + "; ".join(document["noise"]) + ".")
        lines += [*wrap("Trust the ratios and their intervals, not the milliseconds."), ""]
    for title, heads, rows in tables(document, brief=True):
        lines += [title, *plain_table(heads, rows), ""]
    lines += wrap(_machine_line(document))
    for gate in document["gates"]:
        mark = "met    " if gate["met"] else "NOT MET"
        lines += wrap(f"gate {mark} {gate['row']} {gate['says']}")
    names = ", ".join((DOCUMENT, SHEET, TEXT, PAGE, FLIPS))
    lines += ["", *wrap(f"{folder}: {names}")]
    return "\n".join(lines)


def plain_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH
) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right.

    Where it would be wider than `width`, the names in the first column are cut in the
    middle, which keeps what tells them apart: the file's name and the suffix.
    """
    columns = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    gap = "  " if sum(columns) + 2 * (len(columns) - 1) <= width else " "
    over = sum(columns) + len(gap) * (len(columns) - 1) - width
    columns[0] = max(8, columns[0] - max(0, over))

    def line(cells: Sequence[str]) -> str:
        first = shorten(cells[0], columns[0]).ljust(columns[0])
        others = (cell.rjust(size) for cell, size in zip(cells[1:], columns[1:], strict=True))
        return gap.join((first, *others)).rstrip()

    return [line(heads), gap.join("-" * size for size in columns), *(line(row) for row in rows)]


def shorten(text: str, width: int) -> str:
    """Cut a name in the middle where it is too long."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return text[:head] + "~" + text[len(text) - (width - 1 - head) :]


def wrap(text: str) -> list[str]:
    """A sentence in lines of at most `WIDTH` columns; a longer word stays whole."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def markdown(document: Document) -> str:
    """The report for a README, an issue or a pull request."""
    model, data = document["model"], document["data"]
    lines = [
        f"# Bench of {document['run']}",
        "",
        f"{model['architecture']} {model['height']}x{model['width']}, "
        f"{' / '.join(model['labels'])}, on {data['pictures']:,} test pictures of "
        f"{'the drawn sample set (not photographs)' if data['drawings'] else data['name']}; "
        f"`{document['command']}`, {document['created']}.",
        "",
    ]
    if document["noise"]:
        lines += [
            f"> **Noisy run:** {'; '.join(document['noise'])}. Trust the ratios and their "
            "intervals, not the milliseconds.",
            "",
        ]
    for title, heads, rows in tables(document):
        lines += [f"## {title}", "", *_markdown_table(heads, rows), ""]
    if document["gates"]:
        lines += ["## Gates", "", *_markdown_table(
            ["row", "gate", "", "found"],
            [[g["row"], g["gate"], "met" if g["met"] else "**not met**", g["says"]]
             for g in document["gates"]],
        ), ""]  # fmt: skip
    lines += ["## Machine", "", *(f"- {name}: {value}" for name, value in card(document)), ""]
    for one in document["left_out"]:
        lines += [f"Left out: {one['row']}: {one['reason']}", ""]
    lines.append(NOTES)
    return "\n".join(lines) + "\n"


NOTES = (
    "Time is from a decoded frame to its probabilities, in interleaved rounds of blocks; the "
    "ratio to PyTorch has a 95 % bootstrap interval over rounds. Accuracy has Wilson's interval, "
    "the difference from PyTorch (percentage points) Tango's paired one, p is McNemar's exact "
    "test. `max dp` is the largest difference of a probability, ECE the expected calibration "
    "error. First answer, peak memory and processor time are those of a fresh process."
)


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "|".join(["---", *["---:"] * (len(heads) - 1)]) + "|"] + [
        line(row) for row in rows
    ]


def card(document: Document) -> list[tuple[str, str]]:
    """The environment card, in pairs of name and text."""
    found, quiet = document["environment"], document["quiet"]
    load = found["load_before"]
    after = quiet["load_after"]
    pairs = [
        ("processor", found["processor"] + (", virtual machine" if found["hypervisor"] else "")),
        ("instructions", ", ".join(found["flags"]) or "none of those that matter"),
        (
            "processors",
            f"{found['processors_usable']} usable of {found['processors_shown']}"
            + (f", cgroup quota {found['quota']:g}" if found["quota"] else ""),
        ),
        ("threads", f"{found['threads']}, from {found['threads_source']}"),
        (
            "memory",
            f"{(found['memory_bytes'] or 0) / 2**30:.1f} GiB, "
            f"{(found['memory_available_bytes'] or 0) / 2**30:.1f} GiB free at the start",
        ),
        ("system", found["system"]),
        ("governor", found["governor"] or "not told"),
        ("python", found["python"]),
        ("packages", ", ".join(f"{name} {value}" for name, value in found["packages"].items())),
        (
            "providers",
            f"asked for {', '.join(found['providers_asked'])}; "
            f"obtained {', '.join(found['providers_obtained']) or 'none'}",
        ),
        (
            "load",
            (f"{load[0]:.2f} before, " if load else "")
            + (f"{after[0]:.2f} after (with this process)" if after else "not told"),
        ),
        (
            "others",
            "not told"
            if quiet["others_busy"] is None
            else f"{quiet['others_busy']:.2f} processors busy with other processes, "
            f"{quiet['stolen']:.2f} taken by the hypervisor, over {quiet['seconds']:.0f} s",
        ),
    ]
    if found["variables"]:
        pairs.append(
            (
                "variables",
                ", ".join(f"{name}={value}" for name, value in found["variables"].items()),
            )
        )
    return pairs


def _machine_line(document: Document) -> str:
    found, settings = document["environment"], document["settings"]
    return (
        f"{found['processor']}, {found['processors_usable']} usable processors, "
        f"{found['threads']} threads ({found['threads_source']}); {settings['rounds']} rounds in "
        f"{settings['seconds']:g} s; p is McNemar's exact test, dp a difference of probability"
    )


COLUMNS = (
    "name", "base", "engine", "provider", "variant", "precision", "file", "size_bytes",
    "threads", "batch", "ratio", "ratio_low", "ratio_high", "ratio_to", "p50_ms", "p75_ms",
    "p90_ms", "p95_ms", "p99_ms", "mean_ms", "std_ms", "calls", "pictures_per_second",
    "decode_ms", "resize_ms", "session_ms", "rest_ms", "first_answer_s", "load_s",
    "peak_rss_bytes", "cpu_ms", "pictures", "accuracy", "accuracy_low", "accuracy_high",
    "difference", "difference_low", "difference_high", "mcnemar_p", "agreement", "flips",
    "max_difference", "mean_difference", "log_loss", "expected_calibration_error",
)  # fmt: skip
"""Columns of `bench.csv`; the names are those of `bench.json`, made flat."""


def sheet(document: Document) -> str:
    """The rows as CSV; a figure that was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in document["rows"]:
        flat = {name: value for name, value in row.items() if not isinstance(value, dict)}
        flat |= row["latency"] | (row["cold"] or {}) | (row["answers"] or {})
        flat |= {f"{name}_ms": value for name, value in (row["stages_ms"] or {}).items()}
        given = row["ratio"]
        flat |= {
            "ratio": given["value"],
            "ratio_low": given["low"],
            "ratio_high": given["high"],
            "ratio_to": given["to"],
        }
        writer.writerow(flat)
    return text.getvalue()


def write(document: Document, folder: Path) -> None:
    """Write `bench.json`, `bench.csv` and `bench.md`.

    Raises:
        CatdogError: A file cannot be written.
    """
    write_text(folder / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(folder / SHEET, sheet(document))
    write_text(folder / TEXT, markdown(document))


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
