"""Simplify a graph, name its layers, and convert it to another opset."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxscript.optimizer

from catdog_edge.errors import ModelError, first_line
from exporters.graph.nodes import attribute, constant, is_constant, set_attributes
from exporters.graph.onnx_file import clean, opset_of

DEFAULT_OPSET = 17
"""With IR version 8 it loads from onnxruntime 1.15 on; the table is in `docs/export.md`."""

COMMON_OPSETS = range(14, 28)
"""The opsets with which every form loads in the newest onnxruntime that was tried, 1.32."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # operators that hold weights


def simplify(model: ir.Model) -> None:
    """Fold constants, fuse batch norms into convolutions, drop dead nodes.

    Uses onnxscript's optimiser: compared with onnxslim and ONNX Runtime's offline optimiser it
    left the fewest nodes on every architecture here, and neither of them was faster; the figures
    are in `docs/export.md`.
    """
    onnxscript.optimizer.optimize(model)
    pool_reductions(model)
    clean(model)


def pool_reductions(model: ir.Model) -> None:
    """Replace a mean over height and width by `GlobalAveragePool`, which is faster."""
    for node in list(model.graph):
        value = node.inputs[0] if node.op_type == "ReduceMean" else None
        if value is None or value.shape is None or value.shape.rank() != 4:
            continue
        axes = attribute(node, "axes", ())
        if len(node.inputs) > 1 and is_constant(node.inputs[1]):
            axes = constant(node.inputs[1])
        if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
            continue
        new = [ir.node("GlobalAveragePool", [value], name=node.name)]
        if not attribute(node, "keepdims", 1):
            pooled = new[0].outputs[0]
            pooled.name = f"{node.outputs[0].name}.pooled"
            new.append(ir.node("Flatten", [pooled], {"axis": 1}, name=f"{node.name}.flatten"))
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], new, node.outputs, new[-1].outputs
        )


def name_layers(model: ir.Model) -> None:
    """Name layers after their weights: `features.0` where they are `features.0.weight`.

    torch's exporter numbers them, which tells a reader of a report nothing.
    """
    taken = set()
    for node in model.graph:
        weight = node.inputs[1].name if node.op_type in LAYERS and node.inputs[1] else None
        if weight and weight.endswith(".weight"):
            name = weight.removesuffix(".weight")
            if name not in taken:
                node.name = name
                taken.add(name)


def ir_version_for(opset: int) -> int:
    """Return the oldest IR version for an opset: 8 for 17. Old runtimes reject a newer IR."""
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def set_opset(model: ir.Model, opset: int) -> ir.Model:
    """Convert a model, or a copy of it, to another opset with the IR version that goes with it.

    Reductions take their axes as an attribute before opset 18; ONNX's converter cannot
    move them there from the constants that torch's exporter writes, so that is done here. Raises
    `ModelError` where an operator cannot be expressed in that opset.
    """
    now = opset_of(model)
    try:
        if opset < 18 <= now:
            _axes_to_attributes(model)
        proto = ir.to_proto(model)
        if opset != now:
            proto = onnx.version_converter.convert_version(proto, opset)
        proto.ir_version = ir_version_for(opset)
        onnx.checker.check_model(proto, full_check=True)
        converted = ir.from_proto(proto)
        if opset_of(converted) != opset:
            raise ValueError(f"the converter stopped at opset {opset_of(converted)}")
    except Exception as error:  # the converter raises bare RuntimeErrors of several kinds
        other = f"give --opset {now}" if opset < now else f"{DEFAULT_OPSET} is the default"
        raise ModelError(
            f"this model cannot be made with opset {opset} ({first_line(error)}); {other}"
        ) from error
    return converted


def _axes_to_attributes(model: ir.Model) -> None:
    for node in model.graph:
        if not node.op_type.startswith("Reduce") or node.op_type == "ReduceSum":
            continue
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            set_attributes(node, axes=constant(node.inputs[1]).tolist())
            node.resize_inputs(1)
        node.attributes.pop("noop_with_empty_axes", None)
