from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.tinynets import FRAMES, answers

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import read_spec
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.graph import io
from exporters.graph.split import join, split


def test_a_file_taken_apart_and_joined_answers_the_same(fp32: Path, tmp_path: Path) -> None:
    parts = split(io.read_model(fp32))
    assert parts.grey == 127
    assert {node.op_type for node in parts.front.graph.node} == {"Transpose", "DequantizeLinear"}
    assert {node.op_type for node in parts.tail.graph.node} == {"Div", "Softmax"}
    whole = join(parts, parts.core)
    io.write_model(whole, tmp_path / "joined.onnx", read_spec(fp32))
    assert np.abs(answers(tmp_path / "joined.onnx", FRAMES) - answers(fp32, FRAMES)).max() < 1e-6


def test_a_foreign_graph_is_not_taken_apart(tmp_path: Path) -> None:
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    model = onnx.helper.make_model(made)
    with pytest.raises(ModelError, match="export it again"):
        split(model)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="--spec"):
        quantize_dynamic(tmp_path / "foreign.onnx", tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()
