"""Classifiers as other programs write them, and what they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIZE, LABELS = 32, "cat,dog,fox"
MEAN, STD = (0.48, 0.45, 0.4), (0.23, 0.22, 0.25)
TINTS = np.random.default_rng(5).integers(0, 200, (6, 1, 1, 3))
FRAMES = (TINTS + np.random.default_rng(6).integers(0, 56, (6, SIZE, SIZE, 3))).astype(np.uint8)


def network(
    path: Path,
    layout: str = "nchw-float",
    end: str = "",
    batch: int | str = "batch",
    outputs: int = 3,
    size: int | str = SIZE,
    channels: int = 3,
    opset: int = 17,
    domain: str = "",
    more: tuple[str, ...] = (),
) -> Path:
    """Write a file that answers differently for each of FRAMES.

    `end` is its last operator, `more` are names of further inputs; `domain` is that of its ReLU.
    """
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (8, channels, 3, 3))
    weight, bias = rng.normal(0, 0.5, (outputs, 8)), rng.normal(0, 1, outputs)
    nodes, value = [], "frames"  # a name that is ours as well
    if layout.endswith("uint8"):
        nodes.append(helper.make_node("Cast", [value], ["cast"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Div", ["cast", "full"], ["unit"]))
        value = "unit"
    if layout.startswith("nhwc"):
        nodes.append(helper.make_node("Transpose", [value], ["planes"], perm=[0, 3, 1, 2]))
        value = "planes"
    nodes += [
        helper.make_node("Conv", [value, "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["known"], domain=domain),
        helper.make_node("GlobalAveragePool", ["known"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    if end:
        nodes.append(helper.make_node(end, ["logits"], ["answers"]))
    made = nodes[-1].output[0]
    axes = [size, size, channels] if layout.startswith("nhwc") else [channels, size, size]
    kind = TensorProto.UINT8 if layout.endswith("uint8") else TensorProto.FLOAT
    constants = {"kernel": kernel, "weight": weight, "bias": bias, "full": np.array(255.0)}
    if not layout.endswith("uint8"):
        del constants["full"]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("frames", kind, [batch, *axes])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in more],
        [helper.make_tensor_value_info(made, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    domains = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    return path


def theirs(path: Path, layout: str, bgr: bool = False) -> np.ndarray:
    """What a careful person gets from the file itself, softmax done."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = FRAMES if bgr else FRAMES[..., ::-1]
    if layout.endswith("float"):
        values = ((values / 255 - MEAN) / STD).astype(np.float32)
    if layout.startswith("nchw"):
        values = values.transpose(0, 3, 1, 2)
    batch = session.get_inputs()[0].shape[0]
    count = batch if isinstance(batch, int) else len(values)
    parts = [
        session.run(None, {"frames": np.ascontiguousarray(values[start : start + count])})[0]
        for start in range(0, len(values), count)
    ]
    found = np.concatenate(parts).astype(np.float64)
    if session.get_outputs()[0].name == "answers":
        return found
    powers = np.exp(found - found.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
