"""The two ends of the exported graph: from the frame to the network, from logits to answers.

Knows the layouts and the arithmetic of normalisation, nothing of torch or of what lies
between the ends. Colour order, scale and mean go into the first convolution where the
result is the same number for every pixel; where it is not, what is left stays a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import INPUT, KNOWN, LOGITS, PROBABILITIES
from catdog_edge.spec import Layout, ModelSpec, Normalization
from exporters.graph.io import Constants, attribute, put, readers, rename, set_attribute, tidy

FRAMES = INPUT
EVERY_LOGIT = "logits.every"
"""The classes' logits and, last, that of everything else: of a network that knows others."""

_ELEMENT = {"nhwc-uint8": TensorProto.UINT8, "nchw-float": TensorProto.FLOAT}


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


def add_input(
    model: onnx.ModelProto, spec: ModelSpec, layout: Layout, batch: int | None = None
) -> Fold:
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
    graph = model.graph
    old = graph.input[0].name
    number: int | str = batch or "N"
    height, width = spec.size
    as_bytes = layout == "nhwc-uint8"
    shape = [number, height, width, 3] if as_bytes else [number, 3, height, width]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(FRAMES, _ELEMENT[layout], shape))

    # In the units of this input: value v is normalised to (v - mean) / deviation.
    unit = 1.0 if as_bytes else 255.0
    mean = np.array(spec.normalization.mean, dtype=np.float64) / unit
    deviation = np.array(spec.normalization.std, dtype=np.float64) / unit

    ends = _Chain(FRAMES)
    if as_bytes:
        ends.add("Transpose", "nchw", perm=[0, 3, 1, 2])
        ends.add("Cast", "float", to=TensorProto.FLOAT)

    convolution = _sole_convolution(model, old)
    fold = Fold(False if as_bytes else None, False, False)
    if convolution is not None:
        pads = _pads(convolution)
        grey = _grey(spec.normalization)
        by_pad = as_bytes and grey is not None and any(pads) and any(mean)
        mean_folds = by_pad or not any(pads) or not any(mean)
        if by_pad:
            # The convolution pads with zero, which is the mean: a grey level of the frame. The
            # pad follows the cast because OpenCV 4's dnn pads bytes with zero, whatever is asked.
            widths = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            ends.add(
                "Pad",
                "padded",
                put(model, "frames.pad_widths", widths),
                put(model, "frames.pad_grey", np.array(grey, np.float32)),
            )
            set_attribute(convolution, "pads", [0, 0, 0, 0])
        _fold(model, convolution, mean if mean_folds else np.zeros(3), deviation, as_bytes)
        fold = Fold(True if as_bytes else None, True, mean_folds)

    if as_bytes and not fold.colour_order:
        ends.add("Gather", "rgb", put(model, "frames.bgr_to_rgb", np.array([2, 1, 0])), axis=1)
    if not fold.mean and any(mean):
        order = mean[::-1] if fold.colour_order else mean
        ends.add("Sub", "centred", put(model, "frames.mean", _per_channel(order)))
    if not fold.scale:
        ends.add("Div", "scaled", put(model, "frames.deviation", _per_channel(deviation)))
    rename(graph.node, old, ends.value)
    graph.node.extend(ends.nodes)
    tidy(model)
    return fold


def add_outputs(
    model: onnx.ModelProto, spec: ModelSpec, logits: bool, batch: int | None = None
) -> None:
    """Turn a graph that ends in logits into one that ends in calibrated probabilities.

    Args:
        model: One output, logits `float32 [N,K]`, or `[N,K+1]` where the spec rejects by
            `known`: that becomes an output of its own, `known` `float32 [N]`.
        spec: Labels and temperature.
        logits: Keep the logits (before the temperature) as a second output.
        batch: See `add_input`.
    """
    graph = model.graph
    classes = len(spec.labels)
    knows_others = spec.logits > classes
    rename(graph.node, graph.output[0].name, EVERY_LOGIT if knows_others else LOGITS)
    if knows_others:
        _add_known(model, classes)
    value = LOGITS
    if spec.temperature != 1.0:
        put(model, "logits.temperature", np.array(spec.temperature, np.float32))
        graph.node.append(
            helper.make_node("Div", [value, "logits.temperature"], ["logits.tempered"], "temper")
        )
        value = "logits.tempered"
    graph.node.append(helper.make_node("Softmax", [value], [PROBABILITIES], "softmax", axis=1))
    number = batch or "N"
    del graph.output[:]
    names = [PROBABILITIES, *([KNOWN] if knows_others else []), *([LOGITS] if logits else [])]
    for name in names:
        shape = [number] if name == KNOWN else [number, classes]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _add_known(model: onnx.ModelProto, classes: int) -> None:
    """From every logit to those of the classes, and to the share of the classes together."""
    put(model, "known.first", np.array([0], np.int64))
    put(model, "known.classes", np.array([classes], np.int64))
    put(model, "known.axis", np.array([1], np.int64))
    cut = ["known.first", "known.classes", "known.axis"]
    model.graph.node.extend(
        [
            helper.make_node("Slice", [EVERY_LOGIT, *cut], [LOGITS], "classes"),
            helper.make_node("Softmax", [EVERY_LOGIT], ["known.shares"], "known.softmax", axis=1),
            helper.make_node("Slice", ["known.shares", *cut], ["known.share"], "known.slice"),
            helper.make_node(
                "ReduceSum", ["known.share", "known.axis"], [KNOWN], "known.sum", keepdims=0
            ),
        ]
    )


class _Chain:
    """Nodes one after the other, each named `frames.` and what the value is after it."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.nodes: list[onnx.NodeProto] = []

    def add(self, kind: str, name: str, *constants: str, **attributes: Any) -> None:
        output = f"{FRAMES}.{name}"
        self.nodes.append(
            helper.make_node(
                kind, [self.value, *constants], [output], f"{output}.{kind}", **attributes
            )
        )
        self.value = output


def _per_channel(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return values.reshape(1, 3, 1, 1).astype(np.float32)


def _sole_convolution(model: onnx.ModelProto, value: str) -> onnx.NodeProto | None:
    """The convolution that alone reads `value` and whose numbers are known, or `None`."""
    nodes = readers(model, value)
    if len(nodes) != 1 or nodes[0].op_type != "Conv" or attribute(nodes[0], "group", 1) != 1:
        return None
    constants = Constants(model)
    explicit = attribute(nodes[0], "auto_pad", b"NOTSET") == b"NOTSET"
    if not explicit or any(name not in constants for name in nodes[0].input[1:]):
        return None
    return nodes[0]


def _pads(convolution: onnx.NodeProto) -> list[int]:
    return list(attribute(convolution, "pads", [0, 0, 0, 0]))


def _grey(normalization: Normalization) -> int | None:
    """The mean as one grey level 0..255, if it is one."""
    mean = normalization.mean[0]
    alike = all(value == mean for value in normalization.mean)
    return int(mean) if alike and mean == int(mean) and 0 <= mean <= 255 else None


def _fold(
    model: onnx.ModelProto,
    convolution: onnx.NodeProto,
    mean: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
    reverse: bool,
) -> None:
    """Let a convolution take values v instead of (v - mean) / deviation, in float64 and back."""
    constants = Constants(model)
    weight = constants[convolution.input[1]].astype(np.float64)
    if weight.ndim != 4 or weight.shape[1] != 3:
        raise ModelError(
            f"the first convolution takes {weight.shape[1]} channels, a frame has three"
        )
    weight = weight / deviation.reshape(1, 3, 1, 1)
    bias = np.zeros(len(weight))
    if len(convolution.input) > 2 and convolution.input[2]:
        bias = constants[convolution.input[2]].astype(np.float64)
    bias = bias - (weight * mean.reshape(1, 3, 1, 1)).sum(axis=(1, 2, 3))
    if reverse:
        weight = weight[:, ::-1]
    # New names: another node may read the old constants.
    names = [
        put(model, "frames.first_weight", weight.astype(np.float32)),
        put(model, "frames.first_bias", bias.astype(np.float32)),
    ]
    del convolution.input[1:]
    convolution.input.extend(names)
