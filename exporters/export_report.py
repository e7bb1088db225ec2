"""The result of an export: metrics of each file, as a table, as JSON and in the file's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from catdog_edge.errors import GateError
from catdog_edge.spec import ModelSpec, Precision
from catdog_edge.system.console import align
from catdog_edge.system.cpu import read_cpu
from catdog_edge.system.threads import choose_threads
from exporters.checks.acceptance import Verification
from exporters.checks.comparison import Accuracy
from exporters.checks.timing import Ratio

AS_FAST = 1.05
"""Times that differ by less than this factor count as the same where a file is recommended."""

HEADS = ("file", "MB", "p50 ms", "to fp32", "accuracy", "change", "same")


@dataclass(frozen=True)
class ExportedFile:
    """One exported file."""

    name: str
    precision: Precision  # of its weights
    bytes: int
    verification: Verification | None  # against `reference`; `None`: it gives no probabilities
    reference: str  # the checkpoint, or the file it was compared with
    p50_ms: float | None = None  # its median call; `None` where it was not timed
    ratio: Ratio | None = None  # how many times as long as fp32 it takes; `None` for fp32 itself
    batch: int = 1  # images a call: the fixed batch, or one
    details: Mapping[str, Any] = field(default_factory=dict)  # how it was made, for `export.json`
    refused: str = ""  # why it is not kept; empty where it is
    provider: str = "cpu"  # what ran it

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "file": self.name,
            "kept": not self.refused,
            "refused": self.refused or None,
            "precision": self.precision,
            "bytes": self.bytes,
            "compared_with": self.reference,
            "verification": None if self.verification is None else self.verification.to_dict(),
            "provider": self.provider,
            "p50_ms": self.p50_ms,
            "pictures_a_call": self.batch,
            "ratio_to_fp32": None if self.ratio is None else asdict(self.ratio),
            **self.details,
        }

    def rows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return its table row under `HEADS`, and the row below."""
        ratio, accuracy, timed = self.ratio, self._accuracy, self.p50_ms is not None
        figures = (
            self.name,
            f"{self.bytes / 1e6:.2f}",
            f"{self.p50_ms:.2f}" if timed else "-",
            f"{ratio.value:.2f}" if ratio else "1" if timed else "-",
            f"{accuracy.candidate:.2%}" if accuracy else "-",
            f"{100 * accuracy.change:+.2f}" if accuracy else "-",
            f"{self.verification.comparison.agreement:.2%}" if self.verification else "-",
        )
        interval = f"{ratio.low:.2f}..{ratio.high:.2f}" if ratio else ""
        change = f"{100 * accuracy.low:+.2f}..{100 * accuracy.high:+.2f}" if accuracy else ""
        return figures, ("  refused" if self.refused else "", "", "", interval, "", change, "")

    @property
    def time(self) -> float:
        """Return its time per call, relative to fp32."""
        return 1.0 if self.ratio is None else self.ratio.value

    def against(self, fp32: ExportedFile) -> str:
        """Describe speed, size and agreement relative to fp32."""
        assert self.verification is not None  # a file without answers is not kept
        found, times = self.verification.comparison, 1 / self.time
        faster = f"{times:.1f} times as fast" if times > AS_FAST else "as fast"
        where = "" if self.provider == "cpu" else f" on {self.provider}"
        timed = ""
        if self.ratio:
            low, high = 1 / self.ratio.high, 1 / self.ratio.low
            timed = f"{faster} as {fp32.name}{where} (95 % interval {low:.1f} to {high:.1f}), "
        than = "" if self.ratio else f" than {fp32.name}"
        return (
            f"{timed}{fp32.bytes / self.bytes:.1f} times smaller{than}, the same "
            f"answer on {100 * found.agreement:.4g} % of {found.images:,} images"
        )

    @property
    def _accuracy(self) -> Accuracy | None:
        return self.verification.accuracy if self.verification else None

    def stamped(
        self, spec: ModelSpec, checked_on: str, quantization: Mapping[str, Any] | None = None
    ) -> ModelSpec:
        """Add the figures, and how it was quantized, to the spec of the file."""
        verification, accuracy = self.verification, self._accuracy
        assert verification is not None  # a file without answers is not kept
        figures: dict[str, Any] = {
            "checked_on": checked_on,
            "compared_with": self.reference,
            "largest_difference": verification.comparison.difference,
            "agreement": verification.comparison.agreement,
            "provider": self.provider,
            "p50_ms": self.p50_ms,
            "pictures_a_call": self.batch,
            "machine": machine(),
        }
        if accuracy is not None:
            change = (accuracy.change, accuracy.low, accuracy.high)
            figures["accuracy"] = accuracy.candidate
            figures["accuracy_change_points"] = [100 * value for value in change]
        if "heat_map_correlation" in self.details:
            figures["heat_map_correlation"] = self.details["heat_map_correlation"]
        if self.ratio is not None:
            figures["ratio_to_fp32"] = asdict(self.ratio)
        metrics = {**spec.metrics, "export": figures}
        if quantization is not None:
            metrics["quantization"] = dict(quantization)
        return spec.replace(metrics=metrics)


def machine() -> dict[str, Any]:
    """Describe the machine that times were measured on, without its host name."""
    import onnxruntime

    return {
        "processor": read_cpu().name,
        "instructions": list(read_cpu().features),
        "threads": choose_threads().count,
        "onnxruntime": onnxruntime.__version__,
    }


def table(files: Sequence[ExportedFile]) -> str:
    """Format the files as text in aligned columns; 95 % intervals are below their figures."""
    batch = files[0].batch if files else 1
    images = "one image" if batch == 1 else f"{batch} images"
    caption = f"p50: a call of {images}; change: percentage points; below: 95 % intervals"
    rows = [HEADS, *(row for file in files for row in file.rows() if any(row))]
    return "\n".join([caption, *align(rows)])


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    files: tuple[ExportedFile, ...]  # every file that was made, kept or refused; fp32 first
    document: dict[str, Any]  # the content of `export.json`
    folder: Path  # where the files are

    def __str__(self) -> str:
        return table(self.files)

    def advice(self) -> str:
        """Recommend a file to ship: the smallest of the fastest ones."""
        fp32, *others = self.files
        kept = [file for file in self.files if not file.refused and file.name.endswith(".onnx")]
        best = min(file.time for file in kept)
        chosen = min((file for file in kept if file.time <= best * AS_FAST), key=lambda f: f.bytes)
        ship = f"ship {self.folder / chosen.name}"
        if chosen is not fp32:
            return f"{ship}: {chosen.against(fp32)}"
        if others:
            return f"{ship}: no smaller file passed its checks and is as fast"
        imported = Path(fp32.reference).suffix == ".onnx"
        right = f"is {fp32.reference}" if imported else "answers as PyTorch does"
        return f"{ship}: it {right}; for a smaller one: catdog-edge export --quantize"

    def require(self) -> None:
        """Raise `GateError` if a file was rejected; of `--quantize auto` one is enough."""
        refused = [file for file in self.files if file.refused]
        if self.document["options"]["quantize"] == "auto":
            int8 = [file for file in self.files if file.precision.startswith("int8")]
            if any(not file.refused for file in int8):
                refused = [file for file in refused if file not in int8]
        if refused:
            listed = "; ".join(f"{file.name}: {file.refused}" for file in refused)
            raise GateError(f"not kept: {listed}")
