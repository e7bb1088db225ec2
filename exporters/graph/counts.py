"""How big a graph is: parameters, multiply-adds of one picture, operators. Needs onnx.

Knows how quantizers write layers; never runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx

from exporters.graph import io

WEIGHT = {
    "Conv": 1,
    "ConvInteger": 1,
    "QLinearConv": 3,
    "Gemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
    "QLinearMatMul": 3,
}
"""Operators that multiply and add, and which of their inputs is the weight."""


def graph_info(model: onnx.ModelProto) -> dict[str, Any]:
    """Count what a graph holds.

    Returns:
        `opset`, `ir_version`, `parameters`, `multiply_adds` (of one picture; `None` where a
        layer's size is not fixed), `nodes`, `operators` (nodes by kind).
    """
    shapes = _shapes(model)
    # What quantization and the ends of the graph add are no parameters of the network.
    helpers = {
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    helpers |= {
        name
        for node in model.graph.node
        if node.op_type == "MatMulInteger"
        for name in node.input[2:]
    }
    constants = io.Constants(model)
    ends = ("frames.mean", "frames.deviation", "frames.pad_grey")
    parameters = sum(
        constants[tensor.name].size
        for tensor in model.graph.initializer
        if tensor.name not in helpers
        and tensor.name not in ends
        and tensor.dims
        and tensor.data_type not in (7, 9)  # int64 and bool: shapes, axes and places
        and not tensor.name.endswith(("_scale", "_zero_point"))
    )
    return {
        "opset": io.opset_of(model),
        "ir_version": int(model.ir_version),
        "parameters": int(parameters),
        "multiply_adds": _sum([_multiply_adds(node, shapes) for node in model.graph.node]),
        "nodes": len(model.graph.node),
        "operators": io.operators(model),
    }


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of all tensors for a batch of one; an axis that is not known is 0."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in single.graph.input:
        axes = value.type.tensor_type.shape.dim
        if value.name not in constants and axes:
            axes[0].dim_value = 1
            break
    del single.graph.value_info[:]
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    except onnx.shape_inference.InferenceError:  # a foreign graph that breaks ONNX's rules
        inferred = onnx.GraphProto()
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int | None:
    """Of one layer: each output is a sum over what a filter or the other axis of a weight holds."""
    place = WEIGHT.get(node.op_type)
    if place is None:
        return 0
    weight, output = shapes.get(node.input[place]), shapes.get(node.output[0])
    if not weight or not output or not all(weight) or not all(output):
        return None
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        return math.prod(output) * weight[1 if io.attribute(node, "transB", 0) else 0]
    return math.prod(output) * weight[-2 if len(weight) > 1 else 0]


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
