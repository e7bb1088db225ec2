"""The first convolution of an int8 graph, made for the way in which it is run. Needs onnx.

Knows what ONNX Runtime does slowly there: a convolution in integers copies the pixels of every
window to one place first, three bytes at a time where a pixel has three channels. Four pixels of
a row taken as one of twelve channels, and two neighbouring outputs computed at once, are the
same sums over longer pieces (space to depth, along the width alone). Since frames and maps are
held with the channels last, taking together and apart moves nothing; what it gains is told by
`benchmarks.studies.first_convolution`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from exporters.graph import io

TAKEN = 4
"""Pixels that become one."""

STRIDE = 2
"""Of the convolutions that this is for: with one of 1 the sums would be over too many zeros."""

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class _First:
    """The first convolution and what stands around it."""

    frames: onnx.NodeProto
    """The `Transpose` that reads the input."""
    conv: onnx.NodeProto
    weight: onnx.NodeProto
    """The `DequantizeLinear` of the weight."""
    bias: onnx.NodeProto | None
    quantize: onnx.NodeProto
    """The `QuantizeLinear` of the convolution's answer, perhaps after an activation."""
    height: int
    width: int


def space_to_depth(model: onnx.ModelProto) -> bool:
    """Rewrite the first convolution, where it is one of stride 2 on the frame's own integers.

    The answers are the same to the last bit: the new filters hold the old ones and zeros.

    Args:
        model: In quantize-dequantize form, frames to probabilities; changed in place.

    Returns:
        Whether there was such a convolution.
    """
    constants = io.Constants(model)
    first = _first(model, constants)
    if first is None:
        return False
    conv = first.conv
    top, left, bottom, _ = io.attribute(conv, "pads", [0, 0, 0, 0])
    weight = constants[first.weight.input[0]]
    zero = constants[first.weight.input[2]]
    filters, before, after = _widened(weight, zero, left)
    outputs = len(weight)
    first.weight.input[0] = io.put(model, f"{conv.name}.taken_weight", filters)
    _twice(model, constants, first.weight, outputs)
    if first.bias is not None:
        _twice(model, constants, first.bias, outputs)
        values = np.tile(constants[first.bias.input[0]], TAKEN // STRIDE)
        first.bias.input[0] = io.put(model, f"{conv.name}.taken_bias", values)
    io.set_attribute(conv, "kernel_shape", filters.shape[2:])
    io.set_attribute(conv, "strides", [STRIDE, 1])
    io.set_attribute(conv, "pads", [top, before, bottom, after])
    _take(model, first)
    _part(model, first, outputs)
    io.tidy(model)
    io.prune(model)
    return True


def _first(model: onnx.ModelProto, constants: io.Constants) -> _First | None:
    """Find the convolution; `None` where the graph begins in another way."""
    source = model.graph.input[0]
    kind = source.type.tensor_type
    shape = [axis.dim_value for axis in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.UINT8 or len(shape) != 4 or shape[3] != 3:
        return None
    height, width = shape[1:3]
    frames = _only(model, source.name, "Transpose")
    if frames is None or tuple(io.attribute(frames, "perm", ())) != TO_NCHW:
        return None
    dequantize = _only(model, frames.output[0], "DequantizeLinear")
    conv = None if dequantize is None else _only(model, dequantize.output[0], "Conv")
    if conv is None or not conv.name:
        return None
    weight = io.maker(model, conv.input[1])
    bias = io.maker(model, conv.input[2]) if len(conv.input) > 2 else None
    for node in (weight, *([] if len(conv.input) < 3 else [bias])):
        # A layer that stays in float has its weights as they are.
        if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3:
            return None
        if not all(name in constants for name in node.input):
            return None
    quantize = _quantized(model, conv)
    assert weight is not None
    if quantize is None or not _fits(conv, constants[weight.input[0]], width):
        return None
    return _First(frames, conv, weight, bias, quantize, height, width)


def _only(model: onnx.ModelProto, name: str, kind: str) -> onnx.NodeProto | None:
    """The one node that reads a tensor, if it is of that kind."""
    found = io.readers(model, name)
    return found[0] if len(found) == 1 and found[0].op_type == kind else None


def _quantized(model: onnx.ModelProto, conv: onnx.NodeProto) -> onnx.NodeProto | None:
    """Where the answer of a convolution becomes integers, perhaps after an activation."""
    node = _only(model, conv.output[0], "QuantizeLinear")
    for activation in ("Relu", "Clip"):
        between = _only(model, conv.output[0], activation)
        if between is not None:
            node = _only(model, between.output[0], "QuantizeLinear")
    return node


def _fits(conv: onnx.NodeProto, weight: npt.NDArray[Any], width: int) -> bool:
    """Whether the outputs of a row are just the windows that start at every second pixel."""
    kernel = weight.shape[3]
    _, left, _, right = io.attribute(conv, "pads", [0, 0, 0, 0])
    return (
        width % TAKEN == 0
        and (width + left + right - kernel) // STRIDE + 1 == width // STRIDE
        and list(io.attribute(conv, "strides", [1, 1])) == [STRIDE, STRIDE]
        and list(io.attribute(conv, "dilations", [1, 1])) == [1, 1]
        and io.attribute(conv, "group", 1) == 1
        and io.attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
    )


def _widened(
    weight: npt.NDArray[Any], zero: npt.NDArray[Any], left: int
) -> tuple[npt.NDArray[Any], int, int]:
    """Filters over taken pixels for two neighbouring outputs at once.

    Args:
        weight: `int8` or `uint8 [K,3,H,W]`.
        zero: What stands for 0 in it: one number, or one for each filter.
        left: Padding before the first pixel.

    Returns:
        `[2K,12,H,G]`: first all filters for the left output, then for the right one; and the
        padding before and after, in taken pixels.
    """
    outputs, channels, tall, wide = weight.shape
    neighbours = TAKEN // STRIDE
    # Pixels of a filter, counted from the first of the group that the output is in.
    reach = [STRIDE * place + pixel - left for place in range(neighbours) for pixel in range(wide)]
    before, after = -math.floor(min(reach) / TAKEN), math.floor(max(reach) / TAKEN)
    shape = (neighbours, outputs, TAKEN, channels, tall, before + 1 + after)
    filters = np.empty(shape, weight.dtype)
    filters[:] = zero.reshape((1, -1, 1, 1, 1, 1))
    for place in range(neighbours):
        for pixel in range(wide):
            group, inside = divmod(STRIDE * place + pixel - left, TAKEN)
            filters[place, :, inside, :, :, before + group] = weight[:, :, :, pixel]
    return filters.reshape(neighbours * outputs, TAKEN * channels, tall, -1), before, after


def _twice(
    model: onnx.ModelProto, constants: io.Constants, node: onnx.NodeProto, outputs: int
) -> None:
    """Scale and zero point for each of the filters, where there is one for each."""
    for place in (1, 2):
        values = constants[node.input[place]]
        if values.shape == (outputs,):
            name = f"{node.name}.taken.{place}"
            node.input[place] = io.put(model, name, np.tile(values, TAKEN // STRIDE))


def _take(model: onnx.ModelProto, first: _First) -> None:
    """`[N,H,W,3]` -> `[N,H,W/4,12]`, ahead of the transposition."""
    shape = io.put(
        model, "frames.taken.shape", np.array([0, first.height, first.width // TAKEN, 3 * TAKEN])
    )
    model.graph.node.append(
        onnx.helper.make_node(
            "Reshape", [first.frames.input[0], shape], ["frames.taken"], "frames.take"
        )
    )
    first.frames.input[0] = "frames.taken"


def _part(model: onnx.ModelProto, first: _First, outputs: int) -> None:
    """`[N,2K,h,w/2]` -> `[N,K,h,w]`, in integers; ONNX Runtime cancels the transpositions."""
    joint = first.quantize.output[0]
    names = [f"{first.conv.name}.parted.{step}" for step in ("last", "shape", "pixels")]
    io.rename(io.readers(model, joint), joint, f"{first.conv.name}.parted")
    shape = io.put(
        model, f"{first.conv.name}.part", np.array([0, -1, first.width // STRIDE, outputs])
    )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Transpose", [joint], [names[0]], names[0], perm=TO_NHWC),
            make("Reshape", [names[0], shape], [names[1]], names[1]),
            make("Transpose", [names[1]], [f"{first.conv.name}.parted"], names[2], perm=TO_NCHW),
        ]
    )
