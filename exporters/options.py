"""What can be asked of an export, and what its files are called. Knows nothing of how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from catdog_edge.spec import Layout, Precision
from exporters.static_int8.calibrate import Calibration

FP32 = "model.onnx"
DYNAMIC = "model.dynamic.onnx"
STATIC = "model.static.onnx"
HALF = "model.half.onnx"
ORT = "model.ort"
STATIC_ORT = "model.static.ort"

FORMS: dict[str, Precision] = {
    FP32: "fp32",
    DYNAMIC: "int8-dynamic",
    STATIC: "int8-static",
    HALF: "fp16",
    ORT: "fp32",
    STATIC_ORT: "int8-static",
}
"""Every file that an export can make, and the precision of its weights."""


@dataclass(frozen=True)
class ExportOptions:
    """The options of `catdog-edge export`."""

    weights: Path | None
    data: str | None
    out: Path | None
    quantize: Literal["dynamic", "static", "all"] | None
    half: bool
    format: Literal["onnx", "ort"]
    layout: Layout
    batch: int | None
    opset: int
    logits: bool
    calibration: Calibration
    calibration_pictures: int
    max_drop: float
    keep_slower: bool
    limit: int | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what decides files and figures; where they are is left out."""
        paths = ("weights", "data", "out")
        return {name: value for name, value in vars(self).items() if name not in paths}
