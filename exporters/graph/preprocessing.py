"""Put preprocessing into a graph: from the resized frame to the network's normalised input.

Colour order, scale and mean go into the first convolution where the result is the same number for
every pixel; where it is not, what is left stays a node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import INPUT
from catdog_edge.spec import Layout, ModelSpec, Normalization
from catdog_edge.training.array_types import Float32, Float64
from exporters.graph import nodes


def add_input(
    model: ir.Model, spec: ModelSpec, layout: Layout, batch: int | None = None, *, bgr: bool = False
) -> str:
    """Replace a normalised float input; describe what was folded into the first convolution.

    The old one is `float32 [N,3,H,W]`, RGB (or BGR, with `bgr`), normalised as
    `spec.normalization` says; the new one `uint8 [N,H,W,3]`, BGR (`nhwc-uint8`), or
    `float32 [N,3,H,W]`, RGB, 0..1 (`nchw-float`).
    """
    graph, old = model.graph, model.graph.inputs[0]
    as_bytes = layout == "nhwc-uint8"
    axes = [*spec.size, 3] if as_bytes else [3, *spec.size]
    kind = ir.DataType.UINT8 if as_bytes else ir.DataType.FLOAT
    value = ir.val(INPUT, kind, [batch or "N", *axes])
    graph.inputs[:] = [value]
    # In the units of this input: value v is normalised to (v - mean) / deviation.
    unit = 1.0 if as_bytes else 255.0
    both = spec.normalization.mean, spec.normalization.std
    mean, deviation = (np.array(one[::-1] if bgr else one, np.float64) / unit for one in both)
    reverse = as_bytes != bgr  # the channels of the new input are in the other order

    def add(kind: str, name: str, *constants: tuple[str, Any], **attributes: Any) -> None:
        nonlocal value
        more = (nodes.add_constant(graph, f"{INPUT}.{called}", one) for called, one in constants)
        inputs, output = [value, *more], f"{INPUT}.{name}"
        value = nodes.add_node(graph, kind, inputs, output, f"{output}.{kind}", **attributes)

    if as_bytes:
        add("Transpose", "nchw", perm=[0, 3, 1, 2])
        add("Cast", "float", to=int(ir.DataType.FLOAT))
    convolution, mean_folds = _foldable_convolution(old), False
    folds = convolution is not None
    if convolution is not None:
        pads = nodes.attribute(convolution, "pads", [0, 0, 0, 0])
        grey = _grey_level(spec.normalization)
        by_pad = as_bytes and grey is not None and any(pads) and any(mean)
        mean_folds = by_pad or not any(pads) or not any(mean)
        if by_pad:
            # The convolution pads with zero, which is the mean: a grey level of the frame. The
            # pad follows the cast because OpenCV 4's dnn pads bytes with zero, whatever is asked.
            widths = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            add("Pad", "padded", ("pad_widths", widths), ("pad_grey", np.array(grey, np.float32)))
            nodes.set_attributes(convolution, pads=[0, 0, 0, 0])
        _fold(graph, convolution, mean if mean_folds else np.zeros(3), deviation, reverse)
    elif reverse:
        add("Gather", "rgb", ("bgr_to_rgb", np.array([2, 1, 0])), axis=1)
    if not mean_folds and any(mean):
        add("Sub", "centred", ("mean", _per_channel(mean[::-1] if reverse and folds else mean)))
    if not folds:
        add("Div", "scaled", ("deviation", _per_channel(deviation)))
    ir.convenience.replace_all_uses_with(old, value)
    graph.sort()
    steps = {"colour order": folds} if reverse else {}
    return _describe(steps | {"scale": folds, "mean": mean_folds})


def _describe(steps: dict[str, bool]) -> str:
    """Describe which steps are folded into the first convolution and which are nodes."""
    inside = ", ".join(name for name, folded in steps.items() if folded) or "nothing"
    left = ", ".join(name for name, folded in steps.items() if not folded)
    return f"{inside} in the first convolution{f'; {left} as nodes' if left else ''}"


def _per_channel(values: Float64) -> Float32:
    return values.reshape(1, 3, 1, 1).astype(np.float32)


def _foldable_convolution(value: ir.Value) -> ir.Node | None:
    """Find a convolution with constant weights that is the only consumer of `value`, or `None`."""
    node = nodes.only_user(value, "Conv")
    if node is None or nodes.attribute(node, "group", 1) != 1:
        return None
    explicit = nodes.attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    return node if explicit and all(map(nodes.is_constant, node.inputs[1:])) else None


def _grey_level(normalization: Normalization) -> int | None:
    """Return the mean as one grey level 0..255, if all channels agree."""
    levels = set(normalization.mean)
    mean = levels.pop()
    return int(mean) if not levels and mean in range(256) else None


def _fold(
    graph: ir.Graph,
    convolution: ir.Node,
    mean: Float64,
    deviation: Float64,
    reverse: bool,
) -> None:
    """Fold (v - mean) / deviation into a convolution, computed in float64."""
    weight = nodes.constant(convolution.inputs[1])
    has_bias = len(convolution.inputs) > 2 and convolution.inputs[2] is not None
    if weight.ndim != 4 or weight.shape[1] != 3:
        raise ModelError(
            f"the first convolution takes {weight.shape[1]} channels, a frame has three"
        )
    scaled = weight.astype(np.float64) / deviation.reshape(1, 3, 1, 1)
    bias = nodes.constant(convolution.inputs[2]).astype(np.float64) if has_bias else 0.0
    moved = bias - (scaled * mean.reshape(1, 3, 1, 1)).sum(axis=(1, 2, 3))
    # New constants: another node may read the old ones.
    convolution.resize_inputs(3)
    folded = {"first_weight": scaled[:, ::-1] if reverse else scaled, "first_bias": moved}
    for place, (name, values) in enumerate(folded.items(), 1):
        value = nodes.add_constant(graph, f"{INPUT}.{name}", values.astype(np.float32))
        convolution.replace_input_with(place, value)
