"""An ONNX graph made simpler, and brought to another opset. Needs onnx and onnxscript.

Knows which rewriting helps and what the converters cannot do; how a graph is read, cleaned
and written is in `graph`.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxscript.optimizer

from catdog_edge.errors import ModelError, first_line
from exporters.graph.io import Constants, attribute, opset_of, prune, tidy


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, fuse batch norms into convolutions, drop dead nodes.

    By onnxscript's optimiser: of it, onnxslim and ONNX Runtime's own offline optimiser it left
    the fewest nodes on every architecture here and none of the others ran faster; the
    figures are in `docs/export.md`.

    Returns:
        A simpler copy.
    """
    simpler: onnx.ModelProto = onnxscript.optimizer.optimize(model)
    pool_reductions(simpler)
    prune(simpler)
    return simpler


def pool_reductions(model: onnx.ModelProto) -> int:
    """Write a mean over height and width as `GlobalAveragePool`, which runtimes are fast at.

    Returns:
        How many were rewritten.
    """
    constants = Constants(model)
    ranks = _ranks(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != 4:
            continue
        axes = constants.get(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
        if axes is None:
            continue
        if sorted(int(axis) % 4 for axis in np.asarray(axes).ravel()) == [2, 3]:
            found.append(node)
    for node in found:
        keeps = attribute(node, "keepdims", 1) == 1
        del node.input[1:]
        del node.attribute[:]
        node.op_type = "GlobalAveragePool"
        if not keeps:
            output = node.output[0]
            node.output[0] = f"{output}.pooled"
            model.graph.node.append(
                onnx.helper.make_node(
                    "Flatten", [node.output[0]], [output], f"{node.name}.flatten", axis=1
                )
            )
    if found:
        tidy(model)
    return len(found)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def ir_version_for(opset: int) -> int:
    """The oldest IR version that may hold an opset: 8 for 17. Old runtimes refuse a newer IR.

    Raises:
        ValueError: This version of the onnx package knows no such opset.
    """
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def set_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Bring a model to another opset, with the IR version that goes with it.

    Reductions take their axes as an attribute before opset 18; ONNX's converter cannot
    move them there from the constants that torch's exporter writes, so that is done here.

    Returns:
        The same model, or a converted copy.

    Raises:
        ModelError: The model has an operator that cannot be expressed in that opset.
    """
    now = opset_of(model)
    try:
        if opset < 18 <= now:
            _axes_to_attributes(model)
        if opset != now:
            model = onnx.version_converter.convert_version(model, opset)
        if opset_of(model) != opset:
            raise ValueError(f"the converter stopped at opset {opset_of(model)}")
        model.ir_version = ir_version_for(opset)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the converter raises bare RuntimeErrors of several kinds
        raise ModelError(
            f"this model cannot be made with opset {opset} ({first_line(error)}); "
            "choose another --opset, 17 is the default"
        ) from error
    return model


def _axes_to_attributes(model: onnx.ModelProto) -> None:
    constants = Constants(model)
    for node in model.graph.node:
        if not node.op_type.startswith("Reduce") or node.op_type == "ReduceSum":
            continue
        if len(node.input) > 1 and node.input[1]:
            axes = constants[node.input[1]].tolist()
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
        for entry in [entry for entry in node.attribute if entry.name == "noop_with_empty_axes"]:
            node.attribute.remove(entry)
