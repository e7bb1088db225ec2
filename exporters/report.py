"""What an export did: a row per file, as a table for people and a document for machines.

Knows how figures are written down, in the file's own spec, in `export.json` and on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catdog_edge.runtime.threads import choose_threads
from catdog_edge.spec import ModelSpec, Precision
from catdog_edge.system.cpu import read_cpu
from exporters.checks.compare import Verification
from exporters.checks.timing import Ratio


@dataclass(frozen=True)
class Row:
    """One file that was made.

    Attributes:
        file: Its name.
        precision: Of its weights.
        bytes: Its size.
        verification: How its answers compare with those of `reference`; `None` where they are
            no answers at all.
        reference: `pytorch`, or the file it was compared with.
        p50_ms: Its median call, in milliseconds; `None` where it was not timed.
        batch: How many pictures such a call holds: the fixed batch, or one.
        ratio: How many times as long as fp32 it takes, in one run; `None` for fp32 itself.
        details: How it was made.
        refused: Why it is not kept; empty where it is.
    """

    file: str
    precision: Precision
    bytes: int
    verification: Verification | None
    reference: str
    p50_ms: float | None
    ratio: Ratio | None
    batch: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file,
            "kept": not self.refused,
            "refused": self.refused or None,
            "precision": self.precision,
            "bytes": self.bytes,
            "compared_with": self.reference,
            "verification": None if self.verification is None else self.verification.to_dict(),
            "p50_ms": self.p50_ms,
            "pictures_a_call": self.batch,
            "ratio_to_fp32": None if self.ratio is None else ratio_dict(self.ratio),
            **self.details,
        }


def ratio_dict(ratio: Ratio) -> dict[str, float]:
    """A ratio with its 95 % interval, for JSON."""
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def machine() -> dict[str, Any]:
    """The machine that times were measured on, without naming its owner."""
    import onnxruntime

    return {
        "processor": read_cpu().name,
        "instructions": list(read_cpu().features),
        "threads": choose_threads().count,
        "onnxruntime": onnxruntime.__version__,
    }


def with_metrics(
    spec: ModelSpec, row: Row, checked_on: str, quantization: Mapping[str, Any] | None = None
) -> ModelSpec:
    """A spec that says what its file was measured to do.

    Args:
        spec: Of the file.
        row: The figures.
        checked_on: The pictures, in words.
        quantization: How it was quantized.
    """
    verification = row.verification
    assert verification is not None  # a file without answers is not kept
    figures: dict[str, Any] = {
        "checked_on": checked_on,
        "compared_with": row.reference,
        "largest_difference": verification.difference,
        "agreement": verification.agreement,
        "p50_ms": row.p50_ms,
        "pictures_a_call": row.batch,
        "machine": machine(),
    }
    accuracy = verification.accuracy
    if accuracy is not None:
        figures |= {
            "accuracy": accuracy.candidate,
            "accuracy_change_points": [
                100 * value for value in (accuracy.change, accuracy.low, accuracy.high)
            ],
        }
    if row.ratio is not None:
        figures["ratio_to_fp32"] = ratio_dict(row.ratio)
    metrics = {**spec.metrics, "export": figures}
    if quantization is not None:
        metrics["quantization"] = dict(quantization)
    return spec.replace(metrics=metrics)


HEADER = ("file", "MB", "p50 ms", "to fp32", "accuracy", "change", "same")


def table(rows: Sequence[Row]) -> str:
    """The rows as text, columns aligned; 95 % intervals are below their figures."""
    lines = [HEADER, *(line for row in rows for line in _cells(row))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    batch = rows[0].batch if rows else 1
    pictures = "one picture" if batch == 1 else f"{batch} pictures"
    caption = f"p50: a call of {pictures}; change: percentage points; below: 95 % intervals"
    return "\n".join(
        [
            caption,
            *(
                "  ".join(
                    cell.rjust(width) if column else cell.ljust(width)
                    for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                ).rstrip()
                for line in lines
            ),
        ]
    )


def _cells(row: Row) -> list[tuple[str, ...]]:
    verification, ratio = row.verification, row.ratio
    accuracy = None if verification is None else verification.accuracy
    figures = (
        row.file,
        f"{row.bytes / 1e6:.2f}",
        "-" if row.p50_ms is None else f"{row.p50_ms:.2f}",
        "-" if row.p50_ms is None else "1" if ratio is None else f"{ratio.value:.2f}",
        "-" if accuracy is None else f"{accuracy.candidate:.2%}",
        "-" if accuracy is None else f"{100 * accuracy.change:+.2f}",
        "-" if verification is None else f"{verification.agreement:.2%}",
    )
    below = (
        "  refused" if row.refused else "",
        "",
        "",
        "" if ratio is None else f"{ratio.low:.2f}..{ratio.high:.2f}",
        "",
        "" if accuracy is None else f"{100 * accuracy.low:+.2f}..{100 * accuracy.high:+.2f}",
        "",
    )
    return [figures, below] if any(below) else [figures]
