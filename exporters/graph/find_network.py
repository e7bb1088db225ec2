"""Find the network between preprocessing and postprocessing of an exported graph.

Only the network is quantized; its ends are unchanged: integer frames before it, temperature and
softmax in float after it (if quantized, probabilities summed to 0.996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import INPUT, LOGITS
from exporters.graph import nodes
from exporters.graph.postprocessing import ALL_LOGITS


@dataclass(frozen=True)
class Network:
    """The network in an exported graph."""

    nodes: tuple[ir.Node, ...]
    start: ir.Value  # what they read: `float32 [N,3,H,W]`
    end: ir.Value  # the logits that they make; of categories, where these are added up to classes
    grey: int | None  # value of a frame that is zero to it; `None`: preprocessing is in float


def find_network(model: ir.Model) -> Network:
    """Find the network in a graph that `export_onnx` wrote, sorted.

    It is changed: a cast followed by a pad with the mean becomes one `DequantizeLinear` whose
    zero point is the mean, and the first convolution pads again by itself: the same numbers, in a
    form in which a quantized convolution reads the frame directly. Raises `ModelError` where the
    ends are not as `export_onnx` makes them.
    """
    grey = _dequantize_frames(model.graph)
    graph = model.graph
    end = _categories(graph) or nodes.find(graph, ALL_LOGITS) or nodes.find(graph, LOGITS)
    before, after, inside = set(graph.inputs), {end}, []
    for node in graph:  # sorted, so one pass is enough
        if str(node.outputs[0].name).startswith(f"{INPUT}."):
            before.update(node.outputs)
        elif after.intersection(node.inputs):
            after.update(node.outputs)
        else:
            inside.append(node)
    starts = {value for node in inside for value in node.inputs if value in before}
    if len(starts) != 1 or end is None:
        raise ModelError(
            "the graph is not one that this version of catdog-edge wrote; export it again"
        )
    return Network(tuple(inside), starts.pop(), end, grey)


def _categories(graph: ir.Graph) -> ir.Value | None:
    """Find the logits of ImageNet's categories, if they are summed to classes.

    The sums stay in float: quantized, all logits of the classes would share a few steps.
    """
    slices = [nodes.producer(n.inputs[0], "Slice") for n in graph if n.op_type == "ReduceLogSumExp"]
    found = {node.inputs[0] for node in slices if node is not None}
    logits = found.pop() if len(found) == 1 else None
    return logits if nodes.producer(logits, "Gemm") else None


def _dequantize_frames(graph: ir.Graph) -> int | None:
    """Replace a cast and a pad of the frame by `DequantizeLinear`; give its zero point."""
    cast = nodes.producer(nodes.find(graph, f"{INPUT}.float"), "Cast")
    if cast is None:
        return None
    last, grey = cast, 0
    pad = nodes.only_user(cast.outputs[0], "Pad")
    if pad is not None:
        last, grey = pad, int(nodes.constant(pad.inputs[2]))
    convolution = nodes.only_user(last.outputs[0], "Conv")
    if convolution is None:
        return None
    if pad is not None:
        widths = nodes.constant(pad.inputs[1]).tolist()
        nodes.set_attributes(convolution, pads=[*widths[2:4], *widths[6:8]])
        # The bias holds -mean * weights for a frame in 0..255; about the mean it holds nothing.
        weight, bias = (nodes.constant(one).astype(np.float64) for one in convolution.inputs[1:3])
        about = bias + grey * weight.sum(axis=(1, 2, 3))
        centred = nodes.add_constant(graph, f"{INPUT}.centred_bias", about.astype(np.float32))
        convolution.replace_input_with(2, centred)
    old = last.outputs[0]
    name, old.name = str(old.name), f"{INPUT}.unused"
    scale = nodes.add_constant(graph, f"{INPUT}.scale", np.array(1, np.float32))
    zero = nodes.add_constant(graph, f"{INPUT}.zero_point", np.array(grey, np.uint8))
    inputs = [cast.inputs[0], scale, zero]
    value = nodes.add_node(graph, "DequantizeLinear", inputs, name, f"{INPUT}.as_float")
    old.replace_all_uses_with(value)
    graph.remove({last, cast}, safe=True)
    graph.sort()
    return grey
