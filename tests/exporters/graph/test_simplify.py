from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

from onnx import helper
from support.models.toy_graphs import X, run, toy

from catdog_edge.errors import ModelError
from exporters.graph import simplify
from exporters.graph.onnx_file import operators, opset_of


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_plane_becomes_a_pool(keepdims: int) -> None:
    model = toy(
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=keepdims),
        axes=np.array([-1, 2]),
    )
    simplify.pool_reductions(model)
    assert "ReduceMean" not in operators(model)
    expected = X.mean((2, 3), keepdims=bool(keepdims))
    assert run(model) == pytest.approx(expected, abs=1e-6)


def test_other_means_stay_and_move_to_an_older_opset() -> None:
    model = toy(
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=0),
        axes=np.array([1]),
    )
    simplify.pool_reductions(model)
    assert operators(model) == {"ReduceMean": 1}
    older = simplify.set_opset(model, 17)
    assert opset_of(older) == 17
    assert older.ir_version == 8
    assert run(older) == pytest.approx(X.mean(1), abs=1e-6)


def test_an_operator_that_an_opset_lacks_is_one_line() -> None:
    model = toy(helper.make_node("Mish", ["x"], ["y"]), opset=18)
    with pytest.raises(ModelError, match=r"with opset 15 .*; give --opset 18$") as caught:
        simplify.set_opset(model, 15)
    assert "\n" not in str(caught.value)
    assert "/" not in str(caught.value)


def test_layers_are_named_after_their_weights() -> None:
    weight = np.zeros((2, 2, 1, 1), np.float32)
    model = toy(
        helper.make_node("Conv", ["x", "features.0.weight"], ["a"], "node_Conv_42"),
        helper.make_node("Conv", ["a", "features.0.weight"], ["b"], "node_Conv_43"),
        helper.make_node("Conv", ["b", "val_7"], ["y"], "node_Conv_44"),
        **{"features.0.weight": weight, "val_7": weight},
    )
    simplify.name_layers(model)
    names = [node.name for node in model.graph]
    assert names == ["features.0", "node_Conv_43", "node_Conv_44"]
