"""Half precision: fp16 weights and arithmetic between a uint8 frame and float32 answers.

Knows how to turn the core of an exported graph into fp16. Half the size everywhere; faster
where the processor computes in fp16 (ONNX Runtime's CPU kernels mostly do not).
"""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import TensorProto, helper

from exporters.formats.dynamic_int8 import finish, fp32_spec
from exporters.graph import io
from exporters.graph.split import join, split

_FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Inputs that ONNX wants in float32 whatever the rest is."""


def halve(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Convert an fp32 file to fp16. Temperature and softmax stay float32.

    Args:
        source: An fp32 `.onnx` file of ours.
        path: The file to write, atomically.

    Raises:
        ModelError: `source` is damaged, foreign or not fp32.
        CatdogError: The file cannot be written.
    """
    model = io.read_model(source)
    spec = fp32_spec(model, source)
    parts = split(model)
    core = onnx.ModelProto()
    core.CopyFrom(parts.core)
    kept = {
        node.input[place]
        for node in core.graph.node
        for place in _FLOAT32_INPUTS.get(node.op_type, ())
        if place < len(node.input)
    }
    constants = io.Constants(core)
    for tensor in list(core.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            values = np.clip(constants[tensor.name], *_limits())
            io.put(core, tensor.name, values.astype(np.float16))
    io.rename(core.graph.node, parts.joint, f"{parts.joint}.half")
    io.rename(core.graph.node, parts.end, f"{parts.end}.half")
    core.graph.node.extend(
        (
            helper.make_node(
                "Cast",
                [parts.joint],
                [f"{parts.joint}.half"],
                f"{parts.joint}.to_half",
                to=TensorProto.FLOAT16,
            ),
            helper.make_node(
                "Cast",
                [f"{parts.end}.half"],
                [parts.end],
                f"{parts.end}.to_float",
                to=TensorProto.FLOAT,
            ),
        )
    )
    whole = join(parts, core)
    finish(whole, io.opset_of(model), model.ir_version)
    io.write_model(whole, path, spec.replace(precision="fp16"))


def _limits() -> tuple[float, float]:
    info = np.finfo(np.float16)
    return float(info.min), float(info.max)
