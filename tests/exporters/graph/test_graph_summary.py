"""Parameters and multiply-adds of small graphs, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
pytest.importorskip("onnxruntime", reason="the toys need onnxruntime; install a flavour")
pytestmark = pytest.mark.train

from onnx.helper import make_node
from support.models.toy_graphs import toy_proto

from exporters.graph.graph_summary import summarize_graph


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_layers_are_counted_for_one_image() -> None:
    model = toy_proto(
        make_node("Conv", ["x", "filters", "bias"], ["maps"], pads=[1, 1, 1, 1]),
        make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        make_node("Reshape", ["pooled", "flat"], ["means"]),
        make_node("Gemm", ["means", "rows"], ["five"], transB=1),
        make_node("Gemm", ["five", "columns"], ["seven"]),
        make_node("MatMul", ["seven", "matrix"], ["y"]),
        filters=ones(3, 2, 3, 3),
        bias=ones(3),
        flat=np.array([0, 3]),
        rows=ones(5, 3),
        columns=ones(5, 7),
        matrix=ones(7, 2),
    )
    info = summarize_graph(model)
    assert info["multiply_adds"] == 3 * 16 * 18 + 5 * 3 + 7 * 5 + 2 * 7
    assert info["parameters"] == 54 + 3 + 15 + 35 + 14
    assert (info["nodes"], info["opset"], info["ir_version"]) == (6, 18, model.ir_version)
    assert info["operators"]["Gemm"] == 2


def test_scales_zero_points_and_ends_are_no_parameters() -> None:
    model = toy_proto(
        make_node("Sub", ["x", "frames.mean"], ["centred"]),
        make_node("DequantizeLinear", ["weight", "scale", "zero"], ["filters"], axis=0),
        make_node("Conv", ["centred", "filters"], ["y"]),
        **{"frames.mean": ones(1, 2, 1, 1)},
        weight=np.ones((3, 2, 1, 1), np.int8),
        scale=ones(3),
        zero=np.zeros(3, np.int8),
    )
    info = summarize_graph(model)
    assert (info["parameters"], info["multiply_adds"]) == (6, 3 * 16 * 2)


def test_a_layer_without_a_fixed_size_is_not_counted() -> None:
    model = toy_proto(
        make_node("Reshape", ["x", "sizes"], ["free"]),
        make_node("MatMul", ["free", "matrix"], ["y"]),
        sizes=np.array([-1, 4]),
        matrix=ones(4, 2),
    )
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    assert summarize_graph(model)["multiply_adds"] is None
