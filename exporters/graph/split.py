"""An exported graph in three parts: the frame's end, the network between, the answer's end.

Knows the names that `front` gives and nothing of quantization. What lies between the ends is
the network that is quantized; its ends stay what they are: integer frames before it,
temperature and softmax in float after it (quantized, probabilities were seen to sum to 0.996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import LOGITS
from exporters.graph.inputs import EVERY_LOGIT, FRAMES
from exporters.graph.io import Constants, maker, put, readers, rename, set_attribute, tidy

ZERO_POINT, SCALE = "frames.zero_point", "frames.scale"


@dataclass(frozen=True)
class Parts:
    """Three models that make one.

    Attributes:
        front: From the file's input to `joint`.
        core: From `joint` (`float32 [N,3,H,W]`) to the logits.
        tail: From the logits to the file's outputs.
        joint: The tensor that front and core share.
        end: The tensor that core and tail share: the network's logits, or those of the categories
            that the tail adds up to classes.
        grey: Where the front is nothing but integers: the value of a frame that is zero to the
            core. `None` where the front computes in float.
    """

    front: onnx.ModelProto
    core: onnx.ModelProto
    tail: onnx.ModelProto
    joint: str
    end: str
    grey: int | None


def split(model: onnx.ModelProto) -> Parts:
    """Take an fp32 file of ours apart.

    A cast followed by a pad with the mean becomes one `DequantizeLinear` whose zero point is the
    mean, and the first convolution pads again by itself: the same numbers, in a form in which a
    quantized convolution reads the frame directly.

    Args:
        model: As `to_onnx` wrote it; it is not changed.

    Raises:
        ModelError: It has no logits, or its ends are not as `to_onnx` makes them.
    """
    model = _copy(model)
    grey = _frame_as_integers(model)
    front = [node for node in model.graph.node if node.output[0].startswith(f"{FRAMES}.")]
    end = EVERY_LOGIT if maker(model, EVERY_LOGIT) is not None else LOGITS
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    width = classes + (end == EVERY_LOGIT)
    categories = _categories(model)
    if categories is not None:
        end, width = categories
    after = _downstream(model, end)
    core = [node for node in model.graph.node if node not in front and node not in after]
    made = {name for node in front for name in node.output} | {FRAMES}
    crossing = {name for node in core for name in node.input if name in made}
    if len(crossing) != 1 or maker(model, end) is None:
        raise ModelError(
            "the graph is not one that this version of catdog-edge wrote; export it again"
        )
    joint = crossing.pop()
    height, width = _frame_size(model)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    number = batch.dim_value or "N"
    at_joint = helper.make_tensor_value_info(joint, TensorProto.FLOAT, [number, 3, height, width])
    at_logits = helper.make_tensor_value_info(end, TensorProto.FLOAT, [number, width])
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    return Parts(
        front=_part(model, front, inputs, [at_joint if front else inputs[0]]),
        core=_part(model, core, [at_joint], [at_logits]),
        tail=_part(model, after, [at_logits], outputs),
        joint=joint,
        end=end,
        grey=grey,
    )


def join(parts: Parts, core: onnx.ModelProto) -> onnx.ModelProto:
    """Put a rewritten core between the ends.

    Where the front is integers and the core starts by quantizing them just so, the core
    reads the frame itself.

    Returns:
        The whole model, in order, without metadata.
    """
    model = _copy(core)
    graph = model.graph
    present = {tensor.name for tensor in graph.initializer}
    for part in (parts.front, parts.tail):
        graph.node.extend(part.graph.node)
        graph.initializer.extend(
            tensor for tensor in part.graph.initializer if tensor.name not in present
        )
        present.update(tensor.name for tensor in part.graph.initializer)
    del graph.input[:]
    graph.input.extend(parts.front.graph.input)
    del graph.output[:]
    graph.output.extend(parts.tail.graph.output)
    tidy(model)
    if parts.grey is not None:
        _read_frame_directly(model, parts.joint)
    return model


def _categories(model: onnx.ModelProto) -> tuple[str, int] | None:
    """The logits of ImageNet's categories, where they are added up to classes, and their number.

    The sums stay in float: quantized, all logits of the classes would share a few steps.
    """
    sums = [node for node in model.graph.node if node.op_type == "ReduceLogSumExp"]
    slices = [maker(model, node.input[0]) for node in sums]
    logits = {node.input[0] for node in slices if node is not None and node.op_type == "Slice"}
    if len(logits) != 1:
        return None
    name = logits.pop()
    layer = maker(model, name)
    if layer is None or layer.op_type != "Gemm" or len(layer.input) != 3:
        return None
    return name, int(Constants(model)[layer.input[2]].size)


def _frame_as_integers(model: onnx.ModelProto) -> int | None:
    cast = maker(model, f"{FRAMES}.float")
    if cast is None or cast.op_type != "Cast":
        return None
    constants = Constants(model)
    end, grey, pads = cast, 0, None
    users = readers(model, cast.output[0])
    if len(users) == 1 and users[0].op_type == "Pad":
        end = users[0]
        widths = constants[end.input[1]].tolist()
        grey, pads = int(constants[end.input[2]]), [*widths[2:4], *widths[6:8]]
        users = readers(model, end.output[0])
    if len(users) != 1 or users[0].op_type != "Conv":
        return None
    if pads is not None:
        convolution = users[0]
        set_attribute(convolution, "pads", pads)
        # The bias holds -mean * weights for a frame in 0..255; about the mean it holds nothing.
        weight, bias = (constants[name].astype(np.float64) for name in convolution.input[1:3])
        about = bias + grey * weight.sum(axis=(1, 2, 3))
        convolution.input[2] = put(model, "frames.centred_bias", about.astype(np.float32))
        model.graph.node.remove(end)
    model.graph.node.remove(cast)
    put(model, SCALE, np.array(1, np.float32))
    put(model, ZERO_POINT, np.array(grey, np.uint8))
    model.graph.node.append(
        helper.make_node(
            "DequantizeLinear",
            [cast.input[0], SCALE, ZERO_POINT],
            [end.output[0]],
            "frames.as_float",
        )
    )
    tidy(model)
    return grey


def _read_frame_directly(model: onnx.ModelProto, joint: str) -> None:
    """Collapse dequantize-quantize-dequantize where the two ends are the same."""
    constants = Constants(model)
    start = maker(model, joint)
    users = readers(model, joint)
    if start is None or any(node.op_type != "QuantizeLinear" for node in users):
        return
    for quantize in users:
        same = all(
            constants[ours].dtype == constants[theirs].dtype
            and np.array_equal(constants[ours], constants[theirs])
            for ours, theirs in zip(start.input[1:], quantize.input[1:], strict=True)
        )
        if not same:
            return
    for quantize in users:
        rename(readers(model, quantize.output[0]), quantize.output[0], start.input[0])
        model.graph.node.remove(quantize)
    model.graph.node.remove(start)
    tidy(model)


def _downstream(model: onnx.ModelProto, value: str) -> list[onnx.NodeProto]:
    known, found = {value}, []
    for node in model.graph.node:  # in order, so one pass is enough
        if known.intersection(node.input):
            known.update(node.output)
            found.append(node)
    return found


def _frame_size(model: onnx.ModelProto) -> tuple[int, int]:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return (shape[0], shape[1]) if shape[2] == 3 else (shape[1], shape[2])


def _part(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, model.graph.name, inputs, outputs, constants)
    part = helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin
