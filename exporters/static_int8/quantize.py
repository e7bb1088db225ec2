"""Static quantization: int8 weights and activations with ranges measured beforehand.

Knows how to turn the core of an exported graph into quantize-dequantize form so that ONNX
Runtime runs it in integers, and how to keep a layer in float so that it stays there. Which
layers, and whether the result is good enough, is for `sensitivity` and `gates`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
)

from catdog_edge.images.preprocess import to_layout
from catdog_edge.spec import ModelSpec
from exporters.checks.predictors import Images, open_session
from exporters.formats.dynamic_int8 import finish, fp32_spec
from exporters.formats.quiet import quiet
from exporters.graph import io
from exporters.graph.inputs import FRAMES
from exporters.graph.space_to_depth import space_to_depth
from exporters.graph.split import Parts, join, split
from exporters.static_int8.calibrate import Calibration, Ranges, measure_ranges

Scheme = Literal["u8s8", "s8s8", "u8u8"]

SCHEMES: tuple[Scheme, ...] = ("u8s8", "s8s8", "u8u8")
"""Activations and weights, in the order in which they are tried. `u8s8` and `s8s8` have a
scale per output channel; `u8u8` one per tensor. The later two were measured slower or less
accurate and are a fallback."""

OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Flatten",
    "Reshape",
    "Transpose",
)
"""What is quantized: layers with weights, and what lies between them without needing float."""

_TYPES = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8, True),
    "s8s8": (QuantType.QInt8, QuantType.QInt8, True),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8, False),
}


@dataclass(frozen=True)
class Calibrated:
    """A network taken apart, with the range of every activation.

    Attributes:
        spec: Of the fp32 file.
        parts: The file in three parts.
        ranges: By tensor.
        layers: Names of the layers that can be quantized, in order.
        method: How the ranges were found.
        images: On how many images.
    """

    spec: ModelSpec
    parts: Parts
    ranges: Ranges
    layers: tuple[str, ...]
    method: Calibration
    images: int

    @property
    def int8_spec(self) -> ModelSpec:
        """The spec of a quantized file."""
        return self.spec.replace(precision="int8-static")


def calibrate(
    source: str | os.PathLike[str], images: Images, method: Calibration = "minmax"
) -> Calibrated:
    """Measure the range of every activation of an fp32 file.

    Args:
        source: An fp32 `.onnx` file of ours.
        images: `uint8 [N,S,S,3]`, BGR, of the training split; read one by one.
        method: See `calibrate.measure_ranges`.

    Raises:
        ModelError: `source` is damaged, foreign or not fp32, or this onnxruntime lacks an
            operator for it.
    """
    model = io.read_model(source)
    spec = fp32_spec(model, source)
    parts = split(model)
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    front = None
    if parts.front.graph.node:
        name = f"the first part of {os.fspath(source)}"
        front = open_session(parts.front.SerializeToString(), name=name)

    def inputs() -> Iterator[npt.NDArray[np.float32]]:
        for image in images:
            one = np.repeat(np.asarray(image)[None], max(fixed, 1), axis=0)
            value = to_layout(one, spec.layout)
            yield value if front is None else front.run(None, {FRAMES: value})[0]

    return Calibrated(
        spec=spec,
        parts=parts,
        ranges=measure_ranges(parts.core, inputs, OPERATORS, method),
        layers=tuple(node.name for node in parts.core.graph.node if node.op_type in io.LAYERS),
        method=method,
        images=len(images),
    )


def quantize(
    calibrated: Calibrated,
    scheme: Scheme = "u8s8",
    in_float: Sequence[str] = (),
    *,
    take_pixels: bool = True,
) -> onnx.ModelProto:
    """Make the quantized model.

    Args:
        calibrated: From `calibrate`.
        scheme: See `SCHEMES`.
        in_float: Names of layers to keep in float.
        take_pixels: See `space_to_depth`; `False` is for comparing.

    Returns:
        The whole model, frames to probabilities, without a spec in it.
    """
    parts = calibrated.parts
    activations, weights, per_channel = _TYPES[scheme]
    core = onnx.ModelProto()
    core.CopyFrom(parts.core)
    opset, ir_version = io.opset_of(core), core.ir_version
    options: dict[str, Any] = {"WeightSymmetric": scheme != "u8u8"}
    if parts.grey is not None and activations == QuantType.QUInt8:
        # The frame's own integers: value v stands for v - grey, exactly.
        options["TensorQuantOverrides"] = {
            parts.joint: [
                {
                    "quant_type": activations,
                    "scale": np.array(1, np.float32),
                    "zero_point": np.array(parts.grey, np.uint8),
                }
            ]
        }
    with quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(core),
            per_channel,
            False,  # seven bits instead of eight: for processors without VNNI, at a loss
            weights,
            activations,
            _as_tensors_data(calibrated.ranges),
            [],
            list(in_float),
            list(OPERATORS),
            options,
        )
        quantizer.quantize_model()
        core = quantizer.model.model
    _float_logits(core, parts.end)
    model = join(parts, core)
    for name in in_float:
        _hold_in_float(model, name)
    if take_pixels:
        space_to_depth(model)
    finish(model, opset, ir_version)
    return model


def _as_tensors_data(ranges: Ranges) -> TensorsData:
    pairs = {
        name: (np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, pairs)


def _float_logits(core: onnx.ModelProto, end: str) -> None:
    """Drop the quantization of the logits: the last layer adds up in integers, answers in float."""
    dequantize = io.maker(core, end)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    quantize = io.maker(core, dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return
    core.graph.node.remove(dequantize)
    core.graph.node.remove(quantize)
    io.rename(core.graph.node, quantize.input[0], end)


def _hold_in_float(model: onnx.ModelProto, name: str) -> None:
    """Keep ONNX Runtime from quantizing a float layer when it loads the file.

    Its `WeightBiasQuantization` gives int8 weights to every convolution or linear layer that
    stands between a `DequantizeLinear` with one scale and a `QuantizeLinear`. A scale per
    channel, the same for all, is the same arithmetic and is left alone.
    """
    layer = next(node for node in model.graph.node if node.name == name)
    dequantize = io.maker(model, layer.input[0])
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return
    constants = io.Constants(model)
    channels = _channels(layer, constants[layer.input[1]])
    twin = onnx.NodeProto()
    twin.CopyFrom(dequantize)
    twin.name = f"{name}.to_float"
    twin.output[0] = twin.name
    io.set_attribute(twin, "axis", 1)
    for place in (1, 2):
        values = np.full(channels, constants[dequantize.input[place]])
        twin.input[place] = io.put(model, f"{twin.name}.{place}", values)
    layer.input[0] = twin.output[0]
    model.graph.node.append(twin)


def _channels(layer: onnx.NodeProto, weight: npt.NDArray[Any]) -> int:
    if layer.op_type == "Conv":
        return int(weight.shape[1] * io.attribute(layer, "group", 1))
    return int(weight.shape[1 if io.attribute(layer, "transB", 0) else 0])
