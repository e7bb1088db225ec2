"""Half precision: fp16 weights and arithmetic between a uint8 frame and float32 probabilities.

Half the size; faster on processors that compute in fp16 (ONNX Runtime's CPU kernels mostly do
not).
"""

from __future__ import annotations

import os

import numpy as np
import onnx_ir as ir

from catdog_edge.runtime.model_file import read_spec
from exporters.graph import nodes
from exporters.graph.find_network import find_network
from exporters.graph.onnx_file import clean, read_fp32, read_model, write_model

PACKED = 1024  # numbers in a layer's weights from which `pack_weights` stores them in a byte each
FLOAT, FLOAT16 = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)
FLOAT32_INPUTS = {"Resize": (1, 2)}  # inputs that ONNX wants in float32 whatever the rest is


def convert_fp16(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Convert an fp32 file to fp16, atomically. Temperature and softmax stay float32."""
    model, spec = read_fp32(source)
    network = find_network(model)
    smallest, largest = np.finfo(np.float16).min, np.finfo(np.float16).max
    for node in network.nodes:
        for place, value in enumerate(node.inputs):
            if value is None or not nodes.is_constant(value) or value.dtype != ir.DataType.FLOAT:
                continue
            if place not in FLOAT32_INPUTS.get(node.op_type, ()):
                values = np.clip(nodes.constant(value), smallest, largest)
                nodes.set_constant(value, values.astype(np.float16))
    graph, start, end = model.graph, network.start, network.end
    inside = [use for use in start.uses() if use.node in network.nodes]
    name = start.name
    half = nodes.add_node(graph, "Cast", [start], f"{name}.half", f"{name}.to_half", to=FLOAT16)
    for use in inside:
        use.node.replace_input_with(use.idx, half)
    name = str(end.name)
    end.name = f"{name}.half"
    logits = ir.Value(name=name, type=end.type, shape=end.shape)
    end.type = ir.TensorType(ir.DataType.FLOAT16)
    ir.convenience.replace_all_uses_with(end, logits, replace_graph_outputs=True)
    graph.append(ir.node("Cast", [end], {"to": FLOAT}, outputs=[logits], name=f"{name}.to_float"))
    clean(model)
    write_model(model, path, spec.replace(precision="fp16"))


def pack_weights(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Store the weights of an fp16 file as int8, with one scale per output channel, atomically.

    ONNX Runtime dequantizes them once when it loads the file: calls are as fast as before. The
    file has half the size, and its weights are about as accurate as those of an int8 file.
    """
    model, spec = read_model(source), read_spec(source)
    graph = model.graph
    for node in list(graph):
        weight = node.inputs[1] if node.op_type in ("Conv", "Gemm") else None
        if weight is None or not nodes.is_constant(weight) or weight.dtype != ir.DataType.FLOAT16:
            continue
        values = nodes.constant(weight).astype(np.float32)
        by_row = node.op_type == "Conv" or nodes.attribute(node, "transB", 0)
        if values.size < PACKED:
            continue
        axes = tuple(range(1, values.ndim)) if by_row else (0,)
        scale = np.maximum(np.abs(values).max(axes, keepdims=True) / 127, np.float32(1e-12))
        name = str(weight.name)
        stored = nodes.add_constant(graph, f"{name}.int8", np.rint(values / scale).astype(np.int8))
        steps = nodes.add_constant(graph, f"{name}.scale", scale)
        whole = nodes.add_node(graph, "Cast", [stored], f"{name}.whole", f"{name}.unpack", to=FLOAT)
        wide = nodes.add_node(graph, "Mul", [whole, steps], f"{name}.wide", f"{name}.rescale")
        half = nodes.add_node(graph, "Cast", [wide], f"{name}.half", f"{name}.to_half", to=FLOAT16)
        node.replace_input_with(1, half)
    graph.sort()
    clean(model)
    write_model(model, path, spec)
