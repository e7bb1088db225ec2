"""Dynamic quantization: int8 weights, activations quantized at run time in every call."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import onnxruntime
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as _ort_quantize_dynamic

from catdog_edge.errors import ModelError
from exporters.formats.suppress_logging import suppress_logging
from exporters.graph import onnx_file
from exporters.graph.nodes import constant, is_constant

DYNAMIC_OPERATORS = ("Gemm", "MatMul")
"""Linear layers. A convolution becomes `ConvInteger`, which was measured slower than fp32 on every
architecture here (`docs/export.md`) and which some builds of ONNX Runtime lack."""


@dataclass(frozen=True)
class DynamicReport:
    """The file, the names of its int8 layers, and their share of all parameters, 0..1."""

    path: Path
    quantized: tuple[str, ...]
    share: float


def quantize_dynamic(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> DynamicReport:
    """Quantize the linear layers of an fp32 file, per output channel, symmetric int8 weights.

    An activation has one scale for the whole batch, so a prediction depends slightly on the rest
    of the batch: check and time such a file one image at a time. Without a linear layer the file
    is a copy. Raises `ModelError` if `source` is damaged, foreign or not fp32.
    """
    model, spec = onnx_file.read_fp32(source)
    layers = {
        str(node.name): constant(node.inputs[1]).size
        for node in model.graph
        if node.op_type in DYNAMIC_OPERATORS and is_constant(node.inputs[1])
    }
    with tempfile.TemporaryDirectory() as folder, suppress_logging():
        output = Path(folder) / "dynamic.onnx"
        _ort_quantize_dynamic(
            onnx_file.to_proto(model),
            output,
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = onnx_file.read_model(output)
    if onnx_file.operators(quantized).get("MatMulInteger", 0) != len(layers):
        raise ModelError(
            f"{source}: onnxruntime {onnxruntime.__version__} did not quantize all {len(layers)} "
            "linear layers; report this as a defect of catdog-edge"
        )
    restore(quantized, model)
    onnx_file.write_model(quantized, path, spec.replace(precision="int8-dynamic"))
    numbers = (value.const_value for value in model.graph.initializers.values())
    every = sum(tensor.size for tensor in numbers if tensor and tensor.dtype.is_floating_point())
    return DynamicReport(Path(path), tuple(layers), sum(layers.values()) / every)


def restore(quantized: ir.Model, model: ir.Model) -> None:
    """Undo side effects of a quantizer in place: IR version, unused imports, dead nodes.

    Raises `ModelError` if it raised the opset of the standard operators.
    """
    raised, opset = (onnx_file.opset_of(one) for one in (quantized, model))
    if raised != opset:
        raise ModelError(
            f"quantizing needs opset {raised}, the fp32 file has {opset}; "
            f"export with --opset {raised}"
        )
    quantized.ir_version = model.ir_version
    onnx_file.clean(quantized)
