"""Static quantization: int8 weights and activations with ranges measured beforehand.

The network between the ends of an exported graph gets quantize-dequantize form, so that ONNX
Runtime runs it in integers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from catdog_edge.images.preprocess import to_layout
from catdog_edge.spec import ModelSpec
from catdog_edge.training.array_types import Pixels
from exporters.formats.dynamic_int8 import restore
from exporters.formats.suppress_logging import suppress_logging
from exporters.graph import nodes
from exporters.graph.find_network import find_network
from exporters.graph.onnx_file import read_fp32, to_proto
from exporters.graph.simplify import LAYERS
from exporters.static_int8.calibrate import Calibration, Ranges, measure_ranges
from exporters.static_int8.space_to_depth import space_to_depth

Scheme = Literal["u8s8", "s8s8", "u8u8"]

SCHEMES: dict[Scheme, tuple[QuantType, QuantType, bool]] = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8, True),
    "s8s8": (QuantType.QInt8, QuantType.QInt8, True),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8, False),
}
"""Types of activations and weights, and whether each output channel has a scale of its own, in the
order in which they are tried. The later two were measured slower or less accurate: a fallback."""

OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Flatten", "Reshape", "Transpose",
)  # fmt: skip
"""What is quantized: layers with weights, and what lies between them without needing float."""

HIDDEN = "frames.hidden"  # name of the node that `_hide_frames` adds for a while


@dataclass(frozen=True)
class Calibrated:
    """An fp32 file with the range of every activation of its network."""

    spec: ModelSpec  # of a file quantized with it
    model: onnx.ModelProto  # the file, its frames as `DequantizeLinear`; see `find_network`
    start: str  # name of what the network reads
    end: str  # name of the logits
    grey: int | None  # see `Network`
    outside: tuple[str, ...]  # names of the nodes that are not of the network
    ranges: Ranges  # by activation, measured on `images` images
    layers: tuple[str, ...]  # names of the layers with weights, in order
    method: Calibration
    images: int


def calibrate(
    source: str | os.PathLike[str], images: Pixels, method: Calibration = "minmax"
) -> Calibrated:
    """Measure the range of every activation of an fp32 file of ours.

    The images, `uint8 [N,S,S,3]`, BGR, of the training split, are read one by one; see
    `measure_ranges` for the method. Raises `ModelError` where the file is damaged, foreign, not
    fp32, or does not run.
    """
    model, spec = read_fp32(source)
    network = find_network(model)
    proto = to_proto(model)
    batch = model.graph.inputs[0].shape
    repeats = batch[0] if batch is not None and isinstance(batch[0], int) else 1
    activations = {
        str(value.name)
        for node in network.nodes
        if node.op_type in OPERATORS
        for value in (*node.inputs, *node.outputs)
        if value is not None and not nodes.is_constant(value)
    }

    def inputs() -> Iterator[npt.NDArray[Any]]:
        for image in images:
            yield to_layout(np.repeat(np.asarray(image)[None], repeats, axis=0), spec.layout)

    return Calibrated(
        spec=spec.replace(precision="int8-static"),
        model=proto,
        start=str(network.start.name),
        end=str(network.end.name),
        grey=network.grey,
        outside=tuple(str(node.name) for node in model.graph if node not in network.nodes),
        ranges=measure_ranges(proto, sorted(activations), inputs, method),
        layers=tuple(
            str(node.name)
            for node in network.nodes
            if node.op_type in LAYERS and nodes.is_constant(node.inputs[1])
        ),
        method=method,
        images=len(images),
    )


def quantize(
    calibrated: Calibrated,
    scheme: Scheme = "u8s8",
    in_float: Sequence[str] = (),
    *,
    merge_pixels: bool = True,
) -> ir.Model:
    """Make the quantized model, frames to probabilities, without a spec in it.

    Layers named `in_float` stay in float; without `merge_pixels`, `space_to_depth` is left out, for
    comparing.
    """
    activations, weights, per_channel = SCHEMES[scheme]
    ranges = {
        name: (np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in calibrated.ranges.items()
    }
    source = ir.from_proto(calibrated.model)
    if activations == QuantType.QInt8 and calibrated.grey is not None:
        _hide_frames(source.graph, calibrated.start)
    with suppress_logging():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(to_proto(source)),
            per_channel,
            False,  # seven bits instead of eight: for processors without VNNI, at a loss
            weights,
            activations,
            TensorsData(CalibrationMethod.MinMax, ranges),
            [],
            [*in_float, *calibrated.outside, HIDDEN],
            list(OPERATORS),
            {"WeightSymmetric": per_channel},
        )
        quantizer.quantize_model()
        model: ir.Model = ir.from_proto(quantizer.model.model)
    common.IdentityEliminationPass()(model)
    _keep_logits_float(model.graph, calibrated.end)
    for name in in_float:
        _keep_layer_float(model.graph, name)
    if merge_pixels:
        space_to_depth(model)
    restore(model, source)
    return model


def _hide_frames(graph: ir.Graph, start: str) -> None:
    """Hide from the quantizer that the frames are uint8, since it expects int8."""
    frames = nodes.find(graph, start)
    assert frames is not None
    frames.name = f"{start}.uint8"
    uses = frames.uses()
    value = nodes.add_node(graph, "Identity", [frames], start, HIDDEN)
    for use in uses:
        use.node.replace_input_with(use.idx, value)
    graph.sort()


def _keep_logits_float(graph: ir.Graph, end: str) -> None:
    """Drop the quantization of the logits: the last layer sums integers and returns float."""
    for logits in [value for node in graph for value in node.outputs if value.name == end]:
        dequantize = nodes.producer(logits, "DequantizeLinear")
        quantize = nodes.producer(dequantize.inputs[0], "QuantizeLinear") if dequantize else None
        if quantize is not None and quantize.inputs[0] is not None:  # an output of the graph
            logits.name, quantize.inputs[0].name = f"{end}.unused", end
            quantize.inputs[0].type, quantize.inputs[0].shape = logits.type, logits.shape
            logits.replace_all_uses_with(quantize.inputs[0], replace_graph_outputs=True)
        for use in logits.uses():
            if use.node.op_type == "QuantizeLinear":
                for reader in use.node.outputs[0].uses():
                    reader.node.outputs[0].replace_all_uses_with(logits)


def _keep_layer_float(graph: ir.Graph, name: str) -> None:
    """Keep ONNX Runtime from quantizing a float layer when it loads the file.

    Its `WeightBiasQuantization` does so to layers between a `DequantizeLinear` with one scale and a
    `QuantizeLinear`. A scale per channel, the same for all, is the same arithmetic, and left alone.
    """
    layer = next(node for node in graph if node.name == name)
    dequantize = nodes.producer(layer.inputs[0], "DequantizeLinear")
    if dequantize is None:
        return
    weight = nodes.constant(layer.inputs[1])
    if layer.op_type == "Conv":
        channels = weight.shape[1] * nodes.attribute(layer, "group", 1)
    else:
        channels = weight.shape[1 if nodes.attribute(layer, "transB", 0) else 0]
    axis = -1 if layer.op_type == "MatMul" else 1  # of tokens, `[N,T,C]`, the channels are last
    inputs = [dequantize.inputs[0]]
    for place in (1, 2):
        values = np.full(channels, nodes.constant(dequantize.inputs[place]))
        inputs.append(nodes.add_constant(graph, f"{name}.to_float.{place}", values))
    by_channel = nodes.add_node(graph, "DequantizeLinear", inputs, f"{name}.to_float", axis=axis)
    layer.replace_input_with(0, by_channel)
