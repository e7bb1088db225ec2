"""Small graphs, as `onnx_ir` models."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper

from exporters.graph.simplify import ir_version_for

X = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)


def toy_proto(
    *nodes: onnx.NodeProto, opset: int = 18, shape: list | None = None, **constants: np.ndarray
) -> onnx.ModelProto:
    """A model from `x` `float32 [N,2,4,4]` to `y` of a shape, or of any."""
    made = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version_for(opset)
    return model


def toy(*nodes: onnx.NodeProto, **options) -> ir.Model:
    """The same as `toy_proto`."""
    return ir.from_proto(toy_proto(*nodes, **options))


def run(model: ir.Model, x: np.ndarray = X) -> np.ndarray:
    """The output of a toy."""
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
