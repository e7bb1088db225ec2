"""Reports for programs and for text: the terminal, `bench.json`, `bench.csv`, `bench.md`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from benchmarks.report import templates
from benchmarks.report.tables import Document, card, reference_name, tables
from benchmarks.report.text import few, plain_table, wrap
from catdog_edge.system.files import write_text

SCHEMA = 3  # of `bench.json`; raised when a reader of an older version would misread it

DOCUMENT = "bench.json"
SHEET = "bench.csv"
TEXT = "bench.md"
PAGE = "bench.html"
FLIPS = "bench-flips.csv"

# What the reports say of a noisy run, and the short ones of a run with one pass.
DOUBT = (
    "Repeat it on a quiet machine before you quote it: neighbours slow rows with several threads "
    "more than others, so not only the milliseconds but the ratios can be off."
)
ONCE = "rows opened once: intervals do not include variation between runs"


def terminal(document: Document, folder: Path) -> str:
    """Format the report for a terminal of `text.WIDTH` columns."""
    lines: list[str] = []
    if document["noise"]:
        lines += wrap("NOISY RUN: " + "; ".join(document["noise"]) + ".")
        lines += [*wrap(DOUBT), ""]
    for title, heads, rows in tables(document, brief=True):
        lines += [*wrap(title), *plain_table(heads, rows), ""]
    once = f", {ONCE}" if _opened_once(document) else ""
    lines += wrap(
        f"{_rounds(document)}, --seconds {document['settings']['seconds']:g}{once}; p is McNemar's "
        "exact test, dp a difference of probability"
    )
    lines += [line for name, value in card(document) for line in wrap(f"{name}: {value}")]
    for gate in document["gates"]:
        mark = "met    " if gate["met"] else "NOT MET"
        lines += wrap(f"gate {mark} {gate['row']} {gate['says']}")
    names = ", ".join((DOCUMENT, SHEET, TEXT, PAGE, FLIPS))
    if document["loadgen"] is not None:
        names += f", {document['loadgen']['folder']}/"
    lines += ["", *wrap(f"{folder}: {names}")]
    return "\n".join(lines)


def markdown(document: Document) -> str:
    """Format the report as Markdown, for a README, an issue or a pull request."""
    return templates.get("bench.md").render(
        doc=document,
        labels=few(document["model"]["labels"]),
        doubt=DOUBT,
        tables=tables(document),
        gates=[
            [gate["row"], gate["gate"], "met" if gate["met"] else "**not met**", gate["says"]]
            for gate in document["gates"]
        ],
        card=card(document),
        notes=notes(document),
    )


def _opened_once(document: Document) -> bool:
    return len(document["settings"]["pass_starts"]) == 1


def _rounds(document: Document) -> str:
    settings = document["settings"]
    passes = len(settings["pass_starts"])
    return f"{settings['rounds']} rounds in {passes} pass{'es' * (passes > 1)}"


def notes(document: Document) -> str:
    """Explain the figures, for the end of a report."""
    reference = reference_name(document)
    gpu = "PyTorch on it" if reference == "PyTorch" else "that on the CPU"
    how = "; every pass opened new sessions."
    if _opened_once(document):
        how = (
            ": the rows were opened once, so it does not include variation between runs (more "
            "--seconds leave time for more passes)."
        )
    return (
        "Time is from a decoded frame to its probabilities, in interleaved rounds of blocks; the "
        f"ratio to {reference} has a 95 % bootstrap interval over {_rounds(document)}{how} "
        f"Accuracy has Wilson's interval, the difference from {reference} (percentage points) "
        "Tango's paired one, p is McNemar's exact test. `max dp` is the largest difference of a "
        "probability, ECE the expected calibration error. First answer, peak memory and processor "
        "time are those of a fresh process. Rows on a GPU (`@cuda`) are timed against "
        f"{gpu}, copies included."
    )


COLUMNS = (
    "name", "base", "engine", "provider", "variant", "precision", "file", "size_bytes",
    "device", "tf32", "threads", "batch", "ratio", "ratio_low", "ratio_high", "ratio_to",
    "p50_ms", "p75_ms", "p90_ms", "p95_ms", "p99_ms", "mean_ms", "std_ms", "calls",
    "pictures_per_second", "decode_ms", "resize_ms", "session_ms", "rest_ms",
    "first_answer_s", "load_s", "peak_rss_bytes", "gpu_bytes", "cpu_ms",
    "pictures", "accuracy", "accuracy_low", "accuracy_high",
    "difference", "difference_low", "difference_high", "mcnemar_p", "agreement", "flips",
    "max_difference", "mean_difference", "log_loss", "expected_calibration_error",
    "noise", "card",
)  # fmt: skip
"""Columns of `bench.csv`: the names of `bench.json`, flattened."""


def sheet(document: Document) -> str:
    """Format the rows as CSV; a figure that was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    machine = {
        "noise": "; ".join([*document["noise"], *([ONCE] if _opened_once(document) else [])]),
        "card": "; ".join(f"{name}: {value}" for name, value in card(document)),
    }
    for row in document["rows"]:
        flat = machine | row["latency"] | (row["cold"] or {}) | row["answers"]
        flat |= {name: value for name, value in row.items() if not isinstance(value, dict)}
        flat |= {f"{name}_ms": value for name, value in (row["stages_ms"] or {}).items()}
        flat |= {f"ratio_{name}": value for name, value in row["ratio"].items()}
        flat["ratio"] = flat["ratio_value"]
        writer.writerow(flat)
    return text.getvalue()


def write(document: Document, folder: Path) -> None:
    """Write `bench.json`, `bench.csv` and `bench.md`."""
    write_text(folder / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_text(folder / SHEET, sheet(document))
    write_text(folder / TEXT, markdown(document))
