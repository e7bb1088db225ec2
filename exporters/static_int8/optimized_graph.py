"""Read back the graph that ONNX Runtime runs, after its optimisations."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from exporters.checks.predictors import open_session
from exporters.graph.onnx_file import read_model

INTEGER_LAYERS = (
    "QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat", "ConvInteger",
)  # fmt: skip


def optimized_graph(path: str | os.PathLike[str]) -> ir.Model:
    """Return the graph that ONNX Runtime runs for a file on this machine's CPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        open_session(path, threads=1, optimized=file)
        return read_model(file)


def integer_layers(model: ir.Model, layers: Iterable[str]) -> set[str]:
    """Return the layers of a file that ONNX Runtime runs in integers.

    It keeps the name of what it turns into an integer operator, but for a suffix.
    """
    kept = {
        re.sub(r"(_MatMul)?(_quant)?(_token_\d+|_nhwc)?$", "", node.name or "")
        for node in model.graph
        if node.op_type in INTEGER_LAYERS
    }
    return kept.intersection(layers)
