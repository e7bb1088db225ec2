"""Summarize a graph: parameters, multiply-adds of one image, and operators."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import onnx
import onnx_ir as ir

from exporters.graph.nodes import attribute
from exporters.graph.onnx_file import operators, opset_of

WEIGHT = {
    "Conv": 1, "ConvInteger": 1, "QLinearConv": 3,
    "Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3,
}  # fmt: skip
"""Operators that multiply and add, and which of their inputs is the weight."""

ENDS = ("frames.mean", "frames.deviation", "frames.pad_grey")
"""Constants of preprocessing, which are no parameters of the network."""


def summarize_graph(model: onnx.ModelProto) -> dict[str, Any]:
    """Count the parameters, multiply-adds and operators of a graph.

    Returns:
        `opset`, `ir_version`, `parameters`, `multiply_adds` (of one image; `None` where a
        layer's size is not fixed), `nodes`, `operators` (nodes by kind).
    """
    inferred = _inferred(model)
    graph = inferred.graph
    # What quantization adds is no parameter, either.
    helpers = {
        value
        for node in graph
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "MatMulInteger")
        for value in node.inputs[2 if node.op_type == "MatMulInteger" else 1 :]
    }
    parameters = sum(
        tensor.size
        for name, value in graph.initializers.items()
        if (tensor := value.const_value) is not None
        and value not in helpers
        and name not in ENDS
        and tensor.shape
        and tensor.dtype not in (ir.DataType.INT64, ir.DataType.BOOL)  # shapes, axes and places
        and not name.endswith(("_scale", "_zero_point"))
    )
    counts = [_multiply_adds(node) for node in graph]
    return {
        "opset": opset_of(inferred),
        "ir_version": inferred.ir_version,
        "parameters": parameters,
        "multiply_adds": None if None in counts else sum(filter(None, counts)),
        "nodes": len(graph),
        "operators": operators(inferred),
    }


def _inferred(model: onnx.ModelProto) -> ir.Model:
    """Return the graph with the shapes of all values for a batch of one."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    frames = next((value for value in single.graph.input if value.name not in constants), None)
    if frames is not None and frames.type.tensor_type.shape.dim:
        frames.type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    # A foreign graph may break ONNX's rules.
    with contextlib.suppress(onnx.shape_inference.InferenceError):
        single = onnx.shape_inference.infer_shapes(single, data_prop=True)
    return ir.from_proto(single)


def _multiply_adds(node: ir.Node) -> int | None:
    """Count for one layer; each output is a sum over a filter or the other axis of a weight."""
    if node.op_type not in WEIGHT:
        return 0
    weight, output = _sizes(node.inputs[WEIGHT[node.op_type]]), _sizes(node.outputs[0])
    if not weight or not output:
        return None
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        return math.prod(output) * weight[1 if attribute(node, "transB", 0) else 0]
    return math.prod(output) * weight[-2 if len(weight) > 1 else 0]


def _sizes(value: ir.Value | None) -> list[int]:
    """Return the shape of a value; empty where an axis is not fixed."""
    shape = list(value.shape or ()) if value is not None else []
    sizes = [axis for axis in shape if isinstance(axis, int) and axis]
    return sizes if len(sizes) == len(shape) else []
