"""Rewrite the first convolution of an int8 graph so that ONNX Runtime runs it faster.

A convolution in integers copies the pixels of every window to one place first, three bytes at a
time where a pixel has three channels. Four pixels of a row taken as one of twelve channels, and two
neighbouring outputs computed at once, are the same sums over longer pieces (space to depth, along
the width alone). Since frames and maps are held with the channels last, merging and parting pixels
moves nothing; `benchmarks.studies.first_convolution` measures what it gains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporters.graph import nodes
from exporters.graph.onnx_file import clean

MERGED = 4  # pixels that become one

STRIDE = 2
"""Of the convolutions that this is for: with one of 1 the sums would be over too many zeros."""

TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class _FirstConvolution:
    """The first convolution and its nodes; `constants` dequantize the weight and any bias."""

    transpose: ir.Node
    conv: ir.Node
    constants: tuple[ir.Node, ...]
    quantize: ir.Node
    height: int
    width: int


def space_to_depth(model: ir.Model) -> bool:
    """Rewrite the first convolution, if it is one of stride 2 on the frame's own integers.

    Returns whether it is. `model` is in quantize-dequantize form, frames to probabilities. The
    answers are the same to the last bit: the new filters hold the old ones and zeros.
    """
    graph = model.graph
    first = _find(graph)
    if first is None:
        return False
    conv = first.conv
    top, left, bottom, _ = nodes.attribute(conv, "pads", [0, 0, 0, 0])
    weight, _, zero = map(nodes.constant, first.constants[0].inputs)
    filters, before, after = _merged_filters(weight, zero, left)
    outputs = len(weight)
    for node, kind in zip(first.constants, ("weight", "bias"), strict=False):
        values = filters if kind == "weight" else _twice(nodes.constant(node.inputs[0]))
        new = {0: (f"{conv.name}.taken_{kind}", values)}
        for place in (1, 2):  # scale and zero point: one, or one for each filter
            values = nodes.constant(node.inputs[place])
            if values.shape == (outputs,):
                new[place] = (f"{node.name}.taken.{place}", _twice(values))
        for place, (name, values) in new.items():
            node.replace_input_with(place, nodes.add_constant(graph, name, values))
    nodes.set_attributes(
        conv,
        kernel_shape=list(filters.shape[2:]),
        strides=[STRIDE, 1],
        pads=[top, before, bottom, after],
    )
    # `[N,H,W,3]` -> `[N,H,W/4,12]`, ahead of the transposition.
    sizes = np.array([0, first.height, first.width // MERGED, 3 * MERGED])
    shape = nodes.add_constant(graph, "frames.taken.shape", sizes)
    frames = first.transpose.inputs[0]
    merged = nodes.add_node(graph, "Reshape", [frames, shape], "frames.taken", "frames.take")
    first.transpose.replace_input_with(0, merged)
    # `[N,2K,h,w/2]` -> `[N,K,h,w]`, in integers; ONNX Runtime cancels the transpositions.
    joined, name = first.quantize.outputs[0], f"{conv.name}.parted"
    uses = joined.uses()
    sizes = np.array([0, -1, first.width // STRIDE, outputs])
    shape = nodes.add_constant(graph, f"{conv.name}.part", sizes)
    last = nodes.add_node(graph, "Transpose", [joined], f"{name}.last", perm=TO_NHWC)
    parted = nodes.add_node(graph, "Reshape", [last, shape], f"{name}.shape")
    value = nodes.add_node(graph, "Transpose", [parted], name, f"{name}.pixels", perm=TO_NCHW)
    for use in uses:
        use.node.replace_input_with(use.idx, value)
    clean(model)
    return True


def _find(graph: ir.Graph) -> _FirstConvolution | None:
    """Find the convolution; `None` where the graph begins in another way."""
    frames = graph.inputs[0]
    sizes = [axis for axis in list(frames.shape or ())[1:] if isinstance(axis, int)]
    if frames.dtype != ir.DataType.UINT8 or len(sizes) != 3 or sizes[2] != 3:
        return None
    height, width, _ = sizes
    transpose = nodes.only_user(frames, "Transpose")
    if transpose is None or list(nodes.attribute(transpose, "perm", ())) != TO_NCHW:
        return None
    dequantize = nodes.only_user(transpose.outputs[0], "DequantizeLinear")
    conv = None if dequantize is None else nodes.only_user(dequantize.outputs[0], "Conv")
    if conv is None or not conv.name:
        return None
    # A layer that stays in float has its weights as they are.
    constants = [nodes.producer(value, "DequantizeLinear") for value in conv.inputs[1:]]
    known = [
        node for node in constants if node is not None and all(map(nodes.is_constant, node.inputs))
    ]
    if len(known) < len(constants) or not all(len(node.inputs) == 3 for node in known):
        return None
    active = conv.outputs[0]
    for kind in ("Relu", "Clip"):
        activation = nodes.only_user(active, kind)
        active = active if activation is None else activation.outputs[0]
    quantize = nodes.only_user(active, "QuantizeLinear")
    if quantize is None or not _fits(conv, nodes.constant(known[0].inputs[0]), width):
        return None
    return _FirstConvolution(transpose, conv, tuple(known), quantize, height, width)


def _fits(conv: ir.Node, weight: npt.NDArray[Any], width: int) -> bool:
    """Check whether the outputs of a row are just the windows that start at every second pixel."""
    _, left, _, right = nodes.attribute(conv, "pads", [0, 0, 0, 0])
    return (
        width % MERGED == 0
        and (width + left + right - weight.shape[3]) // STRIDE + 1 == width // STRIDE
        and list(nodes.attribute(conv, "strides", [1, 1])) == [STRIDE, STRIDE]
        and list(nodes.attribute(conv, "dilations", [1, 1])) == [1, 1]
        and nodes.attribute(conv, "group", 1) == 1
        and nodes.attribute(conv, "auto_pad", "NOTSET") == "NOTSET"
    )


def _twice(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.tile(values, MERGED // STRIDE)


def _merged_filters(
    weight: npt.NDArray[Any], zero: npt.NDArray[Any], left: int
) -> tuple[npt.NDArray[Any], int, int]:
    """Make filters over merged pixels for two outputs at once: `[K,3,H,W]` -> `[2K,12,H,G]`.

    First come all filters for the left output, then those for the right one; the zero point stands
    for 0 in them. Also returned is the padding before and after, in merged pixels.
    """
    outputs, channels, tall, wide = weight.shape
    neighbours = MERGED // STRIDE
    # Pixels of a filter, counted from the first of the group that the output is in.
    reach = [STRIDE * place + pixel - left for place in range(neighbours) for pixel in range(wide)]
    before, after = -math.floor(min(reach) / MERGED), math.floor(max(reach) / MERGED)
    shape = (neighbours, outputs, MERGED, channels, tall, before + 1 + after)
    filters = np.empty(shape, weight.dtype)
    filters[:] = zero.reshape((1, -1, 1, 1, 1, 1))
    for place in range(neighbours):
        for pixel in range(wide):
            group, inside = divmod(STRIDE * place + pixel - left, MERGED)
            filters[place, :, inside, :, :, before + group] = weight[:, :, :, pixel]
    return filters.reshape(neighbours * outputs, MERGED * channels, tall, -1), before, after
