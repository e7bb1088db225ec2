"""The class activation map of a graph: the contribution of each position to a class logit.

B. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016: the maps before
global average pooling, weighted by the head's row of each class.

The nodes that compute it are not in the graph, where they would run at every call, but beside it,
as the bytes of a second `ModelProto` with nodes and one output. Protobuf merges messages that
follow each other, so the bytes of the file and these are the model with the output `heat_map`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from catdog_edge.errors import ModelError
from catdog_edge.runtime.heat_map import HEAT_MAP, KEY
from catdog_edge.runtime.model_file import LOGITS, PROBABILITIES
from exporters.graph import nodes
from exporters.graph.onnx_file import read_model, to_proto, write_model
from exporters.graph.postprocessing import ALL_LOGITS

POOL = ("GlobalAveragePool",)
TO_LOGITS = ("Add", "Cast")  # a bias, and from fp16
TO_VECTOR = (
    "Cast", "DequantizeLinear", "DynamicQuantizeLinear", "Flatten", "QuantizeLinear", "Reshape",
    "Squeeze",
)  # fmt: skip
"""What changes the form of pooled maps and not their values."""


def add_heat_map(path: Path) -> None:
    """Put the nodes of the output `heat_map`, `float32 [N,K,h,w]`, into a file's metadata.

    The file is one of ours in any precision; nothing else in it changes. The mean of its map over
    the positions and the head's bias add up to the logit of a class, before the temperature. Where
    a class is the sum of categories of the head, its row is the mean of theirs, weighted by their
    shares: the gradient of its logit, as in Grad-CAM (R. Selvaraju et al., ICCV 2017). Raises
    `ModelError` where the head is not a global average pooling and one linear layer.
    """
    model = read_model(path)
    before = to_proto(model)
    copy = ir.from_proto(before)
    _add_output(copy.graph)
    after = to_proto(copy).graph
    here = {one.name for one in before.graph.initializer}
    part = onnx.GraphProto(
        node=after.node[len(before.graph.node) :],
        initializer=[one for one in after.initializer if one.name not in here],
        output=after.output[-1:],
    )
    data = onnx.ModelProto(graph=part).SerializeToString(deterministic=True)
    model.metadata_props[KEY] = base64.b64encode(data).decode()
    write_model(model, path)


def _add_output(graph: ir.Graph) -> None:
    """Append the nodes and the output."""
    end = nodes.find(graph, ALL_LOGITS) or nodes.find(graph, LOGITS)
    groups, scale = _groups(end)
    last = _producer(groups[0].inputs[0]).inputs[0] if groups else end
    layer = _before(last, ("Gemm", "MatMul"), TO_LOGITS)
    layer = layer or _before(last, ("MatMulInteger",), (*TO_LOGITS, "Mul"))
    pool = _before(layer.inputs[0], POOL, TO_VECTOR) if layer else None
    if layer is None or pool is None:
        raise ModelError(
            f"{graph.name} has no heat map: its head is not a global average pooling and one "
            "linear layer, so no weights say what a position adds; leave out --heat-map"
        )
    [probabilities] = [one for one in graph.outputs if one.name == PROBABILITIES]
    assert probabilities.shape is not None
    batch, classes = probabilities.shape
    assert isinstance(classes, int)
    build = _Builder(graph)
    maps, filters = build.floats("maps", pool.inputs[0]), build.filters(layer)
    zero, one = build.numbers("zero", 0), build.numbers("one", 1)
    if groups:
        sums = []
        for number, group in enumerate(groups[:classes]):
            logits = group.inputs[0]
            start, stop = _producer(logits).inputs[1:3]
            own = build.add("Slice", f"{number}.filters", filters, start, stop, zero)
            by_category = build.add("Conv", f"{number}.maps", maps, own)
            shares = build.add("Softmax", f"{number}.shares", logits, axis=1)
            shares = build.add("Reshape", f"{number}.planes", shares, build.plane)
            parts = build.add("Mul", f"{number}.parts", by_category, shares)
            sums.append(build.add("ReduceSum", f"{number}.sum", parts, one, keepdims=1))
        output = build.add("Concat", "sums", *sums, axis=1)
        if scale is not None:
            scale = build.add("Reshape", "scales", scale, build.numbers("row", -1))
            scale = build.add("Slice", "scale", scale, zero, one, zero)  # of all classes
            output = build.add("Mul", "scaled", output, scale)
    else:
        own = build.add("Slice", "rows", filters, zero, build.numbers("classes", classes), zero)
        output = build.add("Conv", "sums", maps, own)
    output.name, output.type = HEAT_MAP, ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape([batch, classes, "h", "w"])
    graph.outputs.append(output)


class _Builder:
    """Appends nodes whose names start with that of the output."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.plane = self.numbers("plane", 0, 0, 1, 1)  # two axes, then a plane of 1x1

    def add(self, kind: str, name: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        name = f"{HEAT_MAP}.{name}"
        return nodes.add_node(self._graph, kind, inputs, name, f"{name}.{kind}", **attributes)

    def numbers(self, name: str, *values: int) -> ir.Value:
        return nodes.add_constant(self._graph, f"{HEAT_MAP}.{name}", np.array(values, np.int64))

    def floats(self, name: str, value: ir.Value | None) -> ir.Value:
        return self.add("Cast", name, value, to=int(ir.DataType.FLOAT))

    def filters(self, layer: ir.Node) -> ir.Value:
        """Return a linear layer's weights for a convolution, `float32 [outputs,inputs,1,1]`."""
        weight = layer.inputs[1]
        if layer.op_type == "MatMulInteger":
            cast = nodes.only_user(layer.outputs[0], "Cast")
            rescale = nodes.only_user(cast.outputs[0], "Mul") if cast else None
            assert rescale is not None
            # By the product of the scales of activations and weights.
            [scale] = filter(nodes.is_constant, _producer(rescale.inputs[1]).inputs)
            weight = self.add("DequantizeLinear", "weight", weight, scale, layer.inputs[3], axis=1)
        rows = self.floats("floats", weight)
        if not nodes.attribute(layer, "transB", 0):
            # With its permutation: onnxruntime 1.20 ends the process where it is left out.
            rows = self.add("Transpose", "transposed", rows, perm=[1, 0])
        return self.add("Reshape", "filters", rows, self.plane)


def _groups(end: ir.Value | None) -> tuple[list[ir.Node], ir.Value | None]:
    """Find the nodes that add categories up to class logits, in order, and the scale of these."""
    joined = _before(end, ("Concat",), ("Add", "Mul"))
    groups = [nodes.producer(value, "ReduceLogSumExp") for value in joined.inputs] if joined else []
    found = [group for group in groups if group is not None]
    if joined is None or len(found) < len(groups):
        return [], None
    scaled = nodes.only_user(joined.outputs[0], "Mul")
    return found, next(filter(nodes.is_constant, scaled.inputs)) if scaled else None


def _producer(value: ir.Value | None) -> ir.Node:
    node = value.producer() if value is not None else None
    assert node is not None
    return node


def _before(
    value: ir.Value | None, wanted: Sequence[str], between: Sequence[str]
) -> ir.Node | None:
    """Find the node of a wanted kind that a value comes from, through other given kinds alone."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in wanted:
            return node
        computed = [one for one in node.inputs if not nodes.is_constant(one)]
        if node.op_type not in between or (node.op_type == "Add" and len(computed) > 1):
            return None
        value = computed[0]
    return None
