"""The graph that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are optimized here; install a flavour")
pytestmark = pytest.mark.train

import onnx_ir as ir
from onnx import helper
from support.models.toy_graphs import toy

from exporters.graph.onnx_file import operators, write_model
from exporters.static_int8.optimized_graph import integer_layers, optimized_graph


def test_constants_are_folded_as_at_run_time(tmp_path: Path) -> None:
    model = toy(
        helper.make_node("Neg", ["one"], ["minus"]),
        helper.make_node("Mul", ["x", "minus"], ["y"]),
        shape=["N", 2, 4, 4],
        one=np.float32([1]),
    )
    write_model(model, tmp_path / "model.onnx")
    assert operators(optimized_graph(tmp_path / "model.onnx")) == {"Mul": 1}


def test_a_layer_in_integers_is_known_by_its_name_but_for_a_suffix() -> None:
    found = {
        "first": "QLinearConv", "second_quant": "QGemm", "third_MatMul_quant": "QLinearMatMul",
        "fourth_nhwc": "QLinearConv", "fifth_token_12": "MatMulInteger", "sixth": "Conv",
        "other": "QLinearConv",
    }  # fmt: skip
    made = [ir.node(kind, [], name=name) for name, kind in found.items()]
    model = ir.Model(ir.Graph([], [], nodes=made, opset_imports={"": 17}), ir_version=8)
    layers = ("first", "second", "third", "fourth", "fifth", "sixth")
    assert integer_layers(model, layers) == {*layers} - {"sixth"}
