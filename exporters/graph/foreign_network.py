"""Turn a graph of another tool into a network as torch's exporter writes it.

Such a network maps normalised `float32 [N,3,H,W]` to logits `float32 [N,K]`; `preprocessing` and
`postprocessing` are then added to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from catdog_edge.errors import ModelError, list_names
from catdog_edge.runtime.model_file import INPUT, KNOWN, LOGITS, PROBABILITIES
from exporters.graph import simplify
from exporters.graph.nodes import add_constant, add_node, attribute, producer
from exporters.graph.onnx_file import opset_of

ForeignLayout = Literal["nchw-float", "nhwc-float", "nhwc-uint8", "nchw-uint8"]
Ending = Literal["logits", "probabilities", "one logit", "one probability"]
"""What comes out: a row of logits or of probabilities, or one value for the second of two classes,
its logit or what a `Sigmoid` made of that."""

ONNX = ("", "ai.onnx")  # names of the domain of ONNX's own operators
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")
SAME_VALUES = (
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Cast"
)  # fmt: skip
LEAST = 1e-30  # probability whose logarithm is taken for that of zero


@dataclass(frozen=True)
class ForeignInput:
    """The input of another tool's graph; `None` for a dynamic size or batch."""

    name: str
    layout: ForeignLayout
    height: int | None
    width: int | None
    batch: int | None

    @property
    def channels_last(self) -> bool:
        """Whether it is `[N,H,W,3]`."""
        return self.layout.startswith("nhwc")

    @property
    def as_bytes(self) -> bool:
        """Whether it is uint8, with its normalisation inside the graph."""
        return self.layout.endswith("uint8")

    @property
    def shape(self) -> list[int | str | None]:
        """Its axes."""
        axes = [self.height, self.width]
        return [self.batch or "N", *([*axes, 3] if self.channels_last else [3, *axes])]


def check_operators(model: ir.Model, name: str) -> None:
    """Raise `ModelError` for operators that are not ONNX's own, fp16, and what is quantized."""
    foreign = {f"{n.domain}.{n.op_type}" for n in model.graph if n.domain not in ONNX}
    foreign -= {f"{domain}.{function}" for domain, function, _ in model.functions}
    if foreign:
        raise ModelError(
            f"{name}: its graph has operators that are not ONNX's own "
            f"({list_names(sorted(foreign))}); export it again without the optimisations of a "
            "runtime, or with these operators written in ONNX's"
        )
    integer = sorted({n.op_type for n in model.graph if n.op_type in QUANTIZED})
    if integer:
        raise ModelError(
            f"{name}: it is quantized already ({', '.join(integer)}); import the float32 file that "
            "it was made from, and quantize that one: catdog-edge export --quantize static"
        )
    for key, value in model.graph.initializers.items():
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            raise ModelError(
                f"{name}: its weights are {value.dtype.name.lower()} ({key}); import the float32 "
                "file, and make the smaller one of it: catdog-edge export --half"
            )


def read_input(model: ir.Model, name: str, layout: ForeignLayout | None) -> ForeignInput:
    """Find the input and its layout; `layout` is needed if its axes are ambiguous.

    Raises `ModelError` if there are other inputs, or it is not a colour image.
    """
    graph = model.graph
    graph.inputs[:] = [value for value in graph.inputs if not value.is_initializer()]
    shown = "; ".join(map(describe_value, graph.inputs)) or "none"
    if len(graph.inputs) != 1:
        raise ModelError(
            f"{name}: expected one input, the images, found {shown}; export it again with the "
            "others as constants"
        )
    value = graph.inputs[0]
    axes = [axis if isinstance(axis, int) and axis > 0 else None for axis in value.shape or ()]
    kind = {ir.DataType.FLOAT: "float", ir.DataType.UINT8: "uint8"}.get(value.dtype)  # type: ignore[arg-type]
    if kind is None or len(axes) != 4:
        raise ModelError(
            f"{name}: expected images as input, float32 or uint8 with four axes, found {shown}; "
            "export it again so that it takes these"
        )
    last = {"nchw": False, "nhwc": True}.get((layout or "")[:4])
    if layout is not None and not layout.endswith(kind):
        raise ModelError(f"{name}: its input is {shown}, not {layout}; leave out --layout")
    if last is None:
        places = [place for place in (1, 3) if axes[place] == 3]
        if len(places) != 1 and None in (axes[1], axes[3]):
            raise ModelError(
                f"{name}: its input {shown} does not show where the channels are; give --layout"
            )
        last = places == [3]
    channels = axes.pop(3 if last else 1)
    if channels not in (3, None):
        raise ModelError(
            f"{name}: its input {shown} has {channels} channels, a frame has three; export it "
            "again with the step from three channels inside"
        )
    layout = f"{'nhwc' if last else 'nchw'}-{kind}"  # type: ignore[assignment]
    assert layout is not None
    return ForeignInput(str(value.name), layout, axes[1], axes[2], axes[0])


def find_sigmoid(value: ir.Value) -> ir.Node | None:
    """Return the `Sigmoid` that a value is the result of, perhaps in another shape or type."""
    node = value.producer()
    while node is not None and node.op_type in SAME_VALUES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type == "Sigmoid" else None


def to_network(
    model: ir.Model,
    name: str,
    source: ForeignInput,
    output: str,
    classes: int,
    ending: Ending,
) -> ir.Model:
    """Return the network alone: simplified, its layers named, in an opset that every form takes.

    Its input is `float32 [N,3,H,W]`, or what `source` says where that takes bytes; its output is
    `classes` logits. `source` has its height and width; `name` is the file that errors name.
    Raises `ModelError` where an operator cannot be expressed in the opset, or the output is a
    sigmoid's.
    """
    graph = model.graph
    value = graph.inputs[0]
    value.shape = ir.Shape(source.shape)
    graph.outputs[:] = [one for one in graph.outputs if one.name == output]
    graph.outputs[0].shape = None  # inferred again
    simplify.simplify(model)
    opset = opset_of(model)
    model = simplify.set_opset(
        model, opset if opset in simplify.COMMON_OPSETS else simplify.DEFAULT_OPSET
    )
    graph = model.graph
    simplify.name_layers(model)
    _rename(graph)
    if source.channels_last and not source.as_bytes:
        _planes_first(graph, source)
    _end_in_logits(graph, name, classes, ending)
    graph.sort()
    return model


def add_byte_input(model: ir.Model, source: ForeignInput, bgr: bool) -> None:
    """Replace an input of bytes, `bgr` or RGB, by the frame `uint8 [N,H,W,3]`, BGR."""
    graph, old = model.graph, model.graph.inputs[0]
    axes = [source.batch or "N", source.height, source.width, 3]
    frames = ir.val(INPUT, ir.DataType.UINT8, axes)  # type: ignore[arg-type]
    graph.inputs[:] = [frames]
    value = frames
    if not bgr:
        order = add_constant(graph, f"{INPUT}.bgr_to_rgb", np.array([2, 1, 0]))
        value = add_node(graph, "Gather", [value, order], f"{INPUT}.rgb", axis=3)
    if not source.channels_last:
        value = add_node(graph, "Transpose", [value], f"{INPUT}.nchw", perm=[0, 3, 1, 2])
    ir.convenience.replace_all_uses_with(old, value)
    graph.sort()


def describe_value(value: ir.Value) -> str:
    """Name, type and shape of a value as text."""
    kind = value.dtype.name.lower() if value.dtype is not None else "of unknown type"
    axes = ", ".join(str(getattr(axis, "value", axis)) for axis in value.shape or ())
    return f"{value.name} {kind} [{axes}]"


def _rename(graph: ir.Graph) -> None:
    """Rename values called like the inputs and outputs to be added, and make node names unique."""
    ends = (INPUT, KNOWN, LOGITS, PROBABILITIES)
    values = [value for node in graph for value in node.outputs]
    for value in (*graph.inputs, *graph.initializers.values(), *values):
        if str(value.name).partition(".")[0] in ends:
            value.name = f"theirs.{value.name}"
    taken: set[str] = set()
    for number, node in enumerate(graph):
        if not node.name or node.name in taken or node.name.startswith(f"{INPUT}."):
            node.name = f"{node.op_type}.{number}"
        taken.add(node.name)


def _planes_first(graph: ir.Graph, source: ForeignInput) -> None:
    """Make a network of `float32 [N,H,W,3]` take planes; drops a transposition at the input."""
    old = graph.inputs[0]
    planes = ir.val("pictures", ir.DataType.FLOAT, [source.batch or "N", 3, *old.shape[1:3]])  # type: ignore[index]
    graph.inputs[:] = [planes]
    for node in [use.node for use in old.uses()]:
        if node.op_type == "Transpose" and list(attribute(node, "perm", ())) == [0, 3, 1, 2]:
            node.outputs[0].replace_all_uses_with(planes)
            graph.remove(node, safe=True)
    if list(old.uses()):
        back = add_node(graph, "Transpose", [planes], "pictures.nhwc", perm=[0, 2, 3, 1])
        ir.convenience.replace_all_uses_with(old, back)


def _end_in_logits(graph: ir.Graph, name: str, classes: int, ending: Ending) -> None:
    """Make a graph end in logits `float32 [N,classes]`, before the softmax."""
    value = graph.outputs[0]
    if ending == "probabilities":
        softmax = producer(value, "Softmax")
        logits = (
            softmax.inputs[0] if softmax and attribute(softmax, "axis", -1) in (1, -1) else None
        )
        if logits is not None and logits.shape is not None and logits.shape.rank() == 2:
            value = logits
        else:  # The softmax of the logarithms are the probabilities themselves.
            least = add_constant(graph, "theirs.least", np.array(LEAST, np.float32))
            above = add_node(graph, "Max", [value, least], "theirs.above")
            value = add_node(graph, "Log", [above], "theirs.log")
    sigmoid = find_sigmoid(value)
    if ending == "logits" and sigmoid is not None:
        raise ModelError(
            f"{name}: its output {value.name} is that of a Sigmoid ({sigmoid.name}), a probability "
            "for each label by itself: a frame may have several or none. Only classes that exclude "
            "each other are answered here; train the network with a softmax"
        )
    if ending.startswith("one"):
        one = value if sigmoid is None else sigmoid.inputs[0]
        assert one is not None
        if one.dtype not in (None, ir.DataType.FLOAT):
            one = add_node(graph, "Cast", [one], "theirs.float", to=ir.DataType.FLOAT)
        one = _rows(graph, one, "theirs.one")
        zero = add_node(graph, "Sub", [one, one], "theirs.zero")
        value = add_node(graph, "Concat", [zero, one], "theirs.two", axis=1)
    value = _rows(graph, value, "theirs.flat")
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape([None, classes])
    graph.outputs[:] = [value]


def _rows(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """Return a value with one row for each image."""
    if value.shape is not None and value.shape.rank() == 2:
        return value
    return add_node(graph, "Flatten", [value], name, axis=1)
