"""Half precision: fp16 weights and arithmetic between a uint8 frame and float32 probabilities.

Half the size everywhere; faster where the processor computes in fp16 (ONNX Runtime's CPU kernels
mostly do not).
"""

from __future__ import annotations

import os

import numpy as np
import onnx_ir as ir

from exporters.graph.find_network import find_network
from exporters.graph.nodes import add_node, constant, is_constant, set_constant
from exporters.graph.onnx_file import clean, read_fp32, write_model

FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Inputs that ONNX wants in float32 whatever the rest is."""


def convert_fp16(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Convert an fp32 file of ours to fp16, atomically. Temperature and softmax stay float32.

    Raises:
        ModelError: `source` is damaged, foreign or not fp32.
        CatdogError: The file cannot be written.
    """
    model, spec = read_fp32(source)
    network = find_network(model)
    smallest, largest = np.finfo(np.float16).min, np.finfo(np.float16).max
    for node in network.nodes:
        for place, value in enumerate(node.inputs):
            if value is None or not is_constant(value) or value.dtype != ir.DataType.FLOAT:
                continue
            if place not in FLOAT32_INPUTS.get(node.op_type, ()):
                values = np.clip(constant(value), smallest, largest)
                set_constant(value, values.astype(np.float16))
    start, end = network.start, network.end
    inside = [use for use in start.uses() if use.node in network.nodes]
    name, to_half = start.name, {"to": int(ir.DataType.FLOAT16)}
    half = add_node(model.graph, "Cast", [start], f"{name}.half", f"{name}.to_half", **to_half)
    for use in inside:
        use.node.replace_input_with(use.idx, half)
    name = str(end.name)
    end.name = f"{name}.half"
    logits = ir.Value(name=name, type=end.type, shape=end.shape)
    end.type = ir.TensorType(ir.DataType.FLOAT16)
    ir.convenience.replace_all_uses_with(end, logits, replace_graph_outputs=True)
    to_float = {"to": int(ir.DataType.FLOAT)}
    model.graph.append(ir.node("Cast", [end], to_float, outputs=[logits], name=f"{name}.to_float"))
    clean(model)
    write_model(model, path, spec.replace(precision="fp16"))
