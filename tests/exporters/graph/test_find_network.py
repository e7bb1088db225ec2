from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

import onnx_ir as ir
from support.models.tiny_nets import FRAMES, answers, trained

from catdog_edge.errors import ModelError
from catdog_edge.spec import Normalization
from catdog_edge.training.models.registry import CENTRED, IMAGENET
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.torch_export import export_onnx
from exporters.graph.find_network import find_network
from exporters.graph.onnx_file import read_model, write_model


@pytest.mark.slow
@pytest.mark.parametrize("normalization", [CENTRED, IMAGENET])
def test_the_core_is_the_network_alone(normalization: Normalization, tmp_path: Path) -> None:
    network, spec = trained(normalization=normalization)
    path = export_onnx(network, spec, tmp_path / "model.onnx").path
    model = read_model(path)
    network = find_network(model)
    kinds = {node.op_type for node in model.graph if node not in network.nodes}
    assert {node.op_type for node in network.nodes if node.op_type == "Conv"}
    if normalization == CENTRED:
        assert network.grey == 127
        assert kinds == {"Transpose", "DequantizeLinear", "Div", "Softmax"}
    else:
        assert network.grey is None
        assert kinds == {"Transpose", "Cast", "Sub", "Div", "Softmax"}
    assert network.end.name == "logits"
    write_model(model, tmp_path / "network.onnx", spec)
    assert np.abs(answers(tmp_path / "network.onnx", FRAMES) - answers(path, FRAMES)).max() < 1e-6


def test_a_foreign_graph_is_not_taken_apart(tmp_path: Path) -> None:
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    model = onnx.helper.make_model(made)
    with pytest.raises(ModelError, match="export it again"):
        find_network(ir.from_proto(model))
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="--spec"):
        quantize_dynamic(tmp_path / "foreign.onnx", tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()
