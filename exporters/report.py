"""What an export did: a row per file, as a table for people and a document for machines.

Knows how figures are written down, in the file's own spec, in `export.json` and on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catdog_edge.processor import processor_features, processor_name
from catdog_edge.spec import ModelSpec, Precision
from catdog_edge.threads import choose_threads
from exporters.text import megabytes
from exporters.timing import Ratio
from exporters.verify import Verification


@dataclass(frozen=True)
class Row:
    """One file that was made.

    Attributes:
        file: Its name.
        precision: Of its weights.
        bytes: Its size.
        verification: How its answers compare with those of `reference`.
        reference: `pytorch`, or the file it was compared with.
        p50_ms: Its median call of one picture, in milliseconds.
        ratio: How many times as long as fp32 it takes, in one run; `None` for fp32 itself.
        details: How it was made.
        refused: Why it is not kept; empty where it is.
    """

    file: str
    precision: Precision
    bytes: int
    verification: Verification
    reference: str
    p50_ms: float
    ratio: Ratio | None
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
            "verification": self.verification.to_dict(),
            "p50_ms": self.p50_ms,
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
        "processor": processor_name(),
        "instructions": list(processor_features()),
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
    figures: dict[str, Any] = {
        "checked_on": checked_on,
        "compared_with": row.reference,
        "largest_difference": row.verification.difference,
        "agreement": row.verification.agreement,
        "p50_ms": row.p50_ms,
        "machine": machine(),
    }
    accuracy = row.verification.accuracy
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


HEADER = ("file", "size", "p50", "time to fp32", "accuracy", "change, points", "same answer", "")


def table(rows: Sequence[Row]) -> str:
    """The rows as text, columns aligned."""
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    accuracy = row.verification.accuracy
    change = "-"
    if accuracy is not None:
        low, high = 100 * accuracy.low, 100 * accuracy.high
        change = f"{100 * accuracy.change:+.2f} ({low:+.2f} to {high:+.2f})"
    return (
        row.file,
        megabytes(row.bytes),
        f"{row.p50_ms:.2f} ms",
        "1" if row.ratio is None else str(row.ratio),
        "-" if accuracy is None else f"{accuracy.candidate:.2%}",
        change,
        f"{row.verification.agreement:.2%}",
        "refused" if row.refused else "kept",
    )
