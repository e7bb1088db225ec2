"""Put postprocessing into a graph: from the logits to calibrated probabilities."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from catdog_edge.runtime.model_file import KNOWN, LOGITS, PROBABILITIES
from catdog_edge.spec import ModelSpec
from exporters.graph.nodes import add_constant, add_node

ALL_LOGITS = "logits.every"
"""The logits of the classes and, last, that of everything else, of a network that has it."""


def add_outputs(model: ir.Model, spec: ModelSpec, logits: bool, batch: int | None = None) -> None:
    """Turn a graph that ends in logits into one that ends in calibrated probabilities.

    The logits are `float32 [N,K]`, or `[N,K+1]` where the spec rejects by `known`: that becomes an
    output of its own, `known` `float32 [N]`. With `logits` they stay, before the temperature, as a
    further output. `batch` is a fixed batch.
    """
    graph, value = model.graph, model.graph.outputs[0]
    classes = len(spec.labels)
    outputs = []
    if spec.logits > classes:
        value.name = ALL_LOGITS
        value, known = _add_known(graph, value, classes)
        outputs.append(known)
    value.name = LOGITS
    if logits:
        outputs.append(value)
    if spec.temperature != 1.0:
        by = add_constant(graph, "logits.temperature", np.array(spec.temperature, np.float32))
        value = add_node(graph, "Div", [value, by], "logits.tempered", "temper")
    outputs.insert(0, add_node(graph, "Softmax", [value], PROBABILITIES, "softmax", axis=1))
    for output in outputs:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape([batch or "N", *([] if output.name == KNOWN else [classes])])
    graph.outputs[:] = outputs


def _add_known(graph: ir.Graph, every: ir.Value, classes: int) -> tuple[ir.Value, ir.Value]:
    """Split all logits into those of the classes and the output `known`."""
    first, last, axis = (
        add_constant(graph, f"known.{name}", np.array([number], np.int64))
        for name, number in (("first", 0), ("classes", classes), ("axis", 1))
    )
    logits = add_node(graph, "Slice", [every, first, last, axis], LOGITS, "classes")
    shares = add_node(graph, "Softmax", [every], "known.shares", "known.softmax", axis=1)
    share = add_node(graph, "Slice", [shares, first, last, axis], "known.share", "known.slice")
    return logits, add_node(graph, "ReduceSum", [share, axis], KNOWN, "known.sum", keepdims=0)
