"""Dynamic quantization: int8 weights, activations quantized anew in every call. Needs onnx.

Knows which operators ONNX Runtime is fast at in this form; whether a file is worth keeping
is for `gates`. Static quantization, with calibration, is in `static`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as _ort_quantize_dynamic

from catdog_edge.errors import ModelError
from exporters.formats.quiet import quiet
from exporters.graph import io

DYNAMIC_OPERATORS = ("Gemm", "MatMul")
"""Linear layers. A convolution becomes `ConvInteger`, which was measured slower than fp32 on every
architecture here (`docs/export.md`) and which some builds of ONNX Runtime lack."""


@dataclass(frozen=True)
class DynamicReport:
    """What dynamic quantization did.

    Attributes:
        path: The file.
        quantized: Names of the layers that are int8.
        share: The share of all parameters that is int8, 0..1.
        bytes: Size of the file.
        bytes_before: Size of the fp32 file.
    """

    path: Path
    quantized: tuple[str, ...]
    share: float
    bytes: int
    bytes_before: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "path": str(self.path), "quantized": list(self.quantized)}


def quantize_dynamic(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> DynamicReport:
    """Quantize the linear layers of an fp32 file, per output channel, symmetric int8 weights.

    The scale of an activation is that of the whole batch, so an answer depends slightly on
    what else is in the batch: check and time such a file one picture at a time.

    Args:
        source: An fp32 `.onnx` file of ours.
        path: The file to write, whole or not at all.

    Raises:
        ModelError: `source` is damaged, foreign or not fp32, or has no linear layer.
        CatdogError: The file cannot be written.
    """
    model = io.read_model(source)
    spec = fp32_spec(model, source)
    constants = io.Constants(model)
    layers = tuple(
        node.name
        for node in model.graph.node
        if node.op_type in DYNAMIC_OPERATORS and node.input[1] in constants
    )
    if not layers:
        raise ModelError(f"{source} has no linear layer; use --quantize static for this model")
    weights = {n.name: constants[n.input[1]].size for n in model.graph.node if n.name in layers}
    opset, ir_version = io.opset_of(model), model.ir_version
    with tempfile.TemporaryDirectory() as folder, quiet():
        output = Path(folder) / "dynamic.onnx"
        _ort_quantize_dynamic(
            model,
            output,
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = io.read_model(output)
    found = io.operators(quantized).get("MatMulInteger", 0)
    if found != len(layers):
        raise ModelError(
            f"{source}: {len(layers)} linear layers were to be quantized, onnxruntime "
            f"{onnxruntime.__version__} did {found}; report this as a defect of catdog-edge"
        )
    finish(quantized, opset, ir_version)
    io.write_model(quantized, path, spec.replace(precision="int8-dynamic"))
    return DynamicReport(
        path=Path(path),
        quantized=layers,
        share=sum(weights.values()) / parameters(model),
        bytes=Path(path).stat().st_size,
        bytes_before=Path(source).stat().st_size,
    )


def fp32_spec(model: onnx.ModelProto, source: str | os.PathLike[str]) -> Any:
    """The spec of a file that is to be rewritten in another precision.

    Raises:
        ModelError: It has none, or it is not fp32.
    """
    spec = io.spec_of(model, source)
    if spec.precision != "fp32":
        raise ModelError(
            f"{source} is {spec.precision} already; give the fp32 file that export wrote"
        )
    return spec


def parameters(model: onnx.ModelProto) -> int:
    """How many floating-point numbers the model's constants hold."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    constants = io.Constants(model)
    return sum(constants[t.name].size for t in model.graph.initializer if t.data_type in kinds)


def finish(model: onnx.ModelProto, opset: int, ir_version: int) -> None:
    """Undo what a quantizer does beyond its work: other versions, unused imports, dead parts.

    Raises:
        ModelError: The quantizer raised the opset of ONNX's own operators.
    """
    if io.opset_of(model) != opset:
        raise ModelError(
            f"quantizing needs opset {io.opset_of(model)}, the fp32 file has {opset}; "
            f"export with --opset {io.opset_of(model)}"
        )
    model.ir_version = ir_version
    used = {node.domain for node in model.graph.node} | {""}
    for entry in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(entry)
    io.tidy(model)
    io.prune(model)
    io.strip(model)
