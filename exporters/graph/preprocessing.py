"""Put preprocessing into a graph: from the resized frame to the network's normalised input.

Colour order, scale and mean go into the first convolution where the result is the same number for
every pixel; where it is not, what is left stays a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import INPUT
from catdog_edge.spec import Layout, ModelSpec, Normalization
from exporters.graph.nodes import (
    add_constant,
    add_node,
    attribute,
    constant,
    is_constant,
    only_user,
    set_attributes,
)


@dataclass(frozen=True)
class Fold:
    """What became part of the first convolution.

    Attributes:
        colour_order: BGR to RGB; `None` where the input is RGB already.
        scale: The division by the deviation.
        mean: The subtraction of the mean: in the bias, with a pad of grey where it pads.
    """

    colour_order: bool | None
    scale: bool
    mean: bool

    def __str__(self) -> str:
        parts = {"colour order": self.colour_order, "scale": self.scale, "mean": self.mean}
        inside = [name for name, folded in parts.items() if folded]
        left = [name for name, folded in parts.items() if folded is False]
        text = f"{', '.join(inside) or 'nothing'} in the first convolution"
        return f"{text}; {', '.join(left)} as nodes" if left else text


def add_input(model: ir.Model, spec: ModelSpec, layout: Layout, batch: int | None = None) -> Fold:
    """Replace a normalised float input by the one that a caller has at hand.

    Args:
        model: One input `float32 [N,3,H,W]`, RGB, normalised as `spec.normalization` says.
        spec: Size and normalisation.
        layout: `nhwc-uint8`: `uint8 [N,H,W,3]`, BGR. `nchw-float`: `float32 [N,3,H,W]`,
            RGB, 0..1.
        batch: A fixed batch; `None` leaves it dynamic.

    Returns:
        What went into the first convolution.
    """
    graph, old = model.graph, model.graph.inputs[0]
    height, width = spec.size
    as_bytes = layout == "nhwc-uint8"
    frames = ir.val(
        INPUT,
        ir.DataType.UINT8 if as_bytes else ir.DataType.FLOAT,
        [batch or "N", height, width, 3] if as_bytes else [batch or "N", 3, height, width],
    )
    graph.inputs[:] = [frames]
    # In the units of this input: value v is normalised to (v - mean) / deviation.
    unit = 1.0 if as_bytes else 255.0
    mean = np.array(spec.normalization.mean, dtype=np.float64) / unit
    deviation = np.array(spec.normalization.std, dtype=np.float64) / unit

    chain = _Chain(graph, frames)
    if as_bytes:
        chain.add("Transpose", "nchw", perm=[0, 3, 1, 2])
        chain.add("Cast", "float", to=int(ir.DataType.FLOAT))
    fold = Fold(False if as_bytes else None, False, False)
    convolution = _foldable_convolution(old)
    if convolution is not None:
        pads = attribute(convolution, "pads", [0, 0, 0, 0])
        grey = _grey_level(spec.normalization)
        by_pad = as_bytes and grey is not None and any(pads) and any(mean)
        mean_folds = by_pad or not any(pads) or not any(mean)
        if by_pad:
            # The convolution pads with zero, which is the mean: a grey level of the frame. The
            # pad follows the cast because OpenCV 4's dnn pads bytes with zero, whatever is asked.
            chain.constant("pad_widths", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
            chain.constant("pad_grey", np.array(grey, np.float32))
            chain.add("Pad", "padded")
            set_attributes(convolution, pads=[0, 0, 0, 0])
        _fold(graph, convolution, mean if mean_folds else np.zeros(3), deviation, as_bytes)
        fold = Fold(True if as_bytes else None, True, mean_folds)
    if as_bytes and not fold.colour_order:
        chain.constant("bgr_to_rgb", np.array([2, 1, 0]))
        chain.add("Gather", "rgb", axis=1)
    if not fold.mean and any(mean):
        chain.constant("mean", _per_channel(mean[::-1] if fold.colour_order else mean))
        chain.add("Sub", "centred")
    if not fold.scale:
        chain.constant("deviation", _per_channel(deviation))
        chain.add("Div", "scaled")
    ir.convenience.replace_all_uses_with(old, chain.value)
    graph.sort()
    return fold


class _Chain:
    """Nodes one after the other, each named after the input and what the value is after it."""

    def __init__(self, graph: ir.Graph, value: ir.Value) -> None:
        self.value = value
        self._graph = graph
        self._constants: list[ir.Value] = []

    def constant(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add a constant, which the next node reads."""
        self._constants.append(add_constant(self._graph, f"{INPUT}.{name}", values))

    def add(self, kind: str, name: str, **attributes: Any) -> None:
        """Add a node that reads the value and the constants."""
        inputs, self._constants = [self.value, *self._constants], []
        output = f"{INPUT}.{name}"
        self.value = add_node(self._graph, kind, inputs, output, f"{output}.{kind}", **attributes)


def _per_channel(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return values.reshape(1, 3, 1, 1).astype(np.float32)


def _foldable_convolution(value: ir.Value) -> ir.Node | None:
    """The convolution that alone reads `value` and whose weights are constant, or `None`."""
    node = only_user(value, "Conv")
    if node is None or attribute(node, "group", 1) != 1:
        return None
    explicit = attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    return node if explicit and all(map(is_constant, node.inputs[1:])) else None


def _grey_level(normalization: Normalization) -> int | None:
    """The mean as one grey level 0..255, if it is one."""
    mean = normalization.mean[0]
    alike = all(value == mean for value in normalization.mean)
    return int(mean) if alike and mean == int(mean) and 0 <= mean <= 255 else None


def _fold(
    graph: ir.Graph,
    convolution: ir.Node,
    mean: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
    reverse: bool,
) -> None:
    """Let a convolution take values v instead of (v - mean) / deviation, in float64 and back."""
    weight = constant(convolution.inputs[1])
    has_bias = len(convolution.inputs) > 2 and convolution.inputs[2] is not None
    if weight.ndim != 4 or weight.shape[1] != 3:
        raise ModelError(
            f"the first convolution takes {weight.shape[1]} channels, a frame has three"
        )
    scaled = weight.astype(np.float64) / deviation.reshape(1, 3, 1, 1)
    bias = constant(convolution.inputs[2]).astype(np.float64) if has_bias else 0.0
    moved = bias - (scaled * mean.reshape(1, 3, 1, 1)).sum(axis=(1, 2, 3))
    # New constants: another node may read the old ones.
    convolution.resize_inputs(3)
    for place, name, values in (
        (1, "first_weight", scaled[:, ::-1] if reverse else scaled),
        (2, "first_bias", moved),
    ):
        value = add_constant(graph, f"{INPUT}.{name}", values.astype(np.float32))
        convolution.replace_input_with(place, value)
