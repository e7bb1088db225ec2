from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

from onnx import TensorProto, helper

from catdog_edge.errors import ModelError
from catdog_edge.spec import METADATA_KEY, ModelSpec, Normalization, squash
from exporters.graph import io, simplify

SPEC = ModelSpec("toy", ("a", "b"), 8, 8, squash(8, 8), Normalization((0,) * 3, (1,) * 3))


def toy(
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
    model.ir_version = simplify.ir_version_for(opset)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


X = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_plane_becomes_a_pool(keepdims: int) -> None:
    model = toy(
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=keepdims),
        axes=np.array([-1, 2]),
    )
    assert simplify.pool_reductions(model) == 1
    assert "ReduceMean" not in io.operators(model)
    expected = X.mean((2, 3), keepdims=bool(keepdims))
    assert run(model, X) == pytest.approx(expected, abs=1e-6)


def test_other_means_stay_and_move_to_an_older_opset() -> None:
    model = toy(
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=0),
        axes=np.array([1]),
    )
    assert simplify.pool_reductions(model) == 0
    older = simplify.set_opset(model, 17)
    assert io.opset_of(older) == 17
    assert older.ir_version == 8
    assert run(older, X) == pytest.approx(X.mean(1), abs=1e-6)


def test_an_operator_that_an_opset_lacks_is_one_line() -> None:
    model = toy(helper.make_node("Mish", ["x"], ["y"]), opset=18)
    with pytest.raises(ModelError, match="cannot be made with opset 15") as caught:
        simplify.set_opset(model, 15)
    assert "\n" not in str(caught.value)
    assert "/" not in str(caught.value)


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4])
    path = tmp_path / "model.onnx"
    io.write_model(model, path)
    data = path.read_bytes()
    for name, content in (
        ("truncated", data[: len(data) // 2]),
        ("empty", b""),
        ("text", b"hello " * 50),
        ("zip", b"PK\x03\x04" + bytes(100)),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.onnx is truncated or not an ONNX file"):
            io.read_model(path)
        assert name
    with pytest.raises(ModelError, match="No such file"):
        io.read_model(tmp_path / "nothing.onnx")


def test_a_broken_graph_is_not_written(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["nowhere"], ["y"]), shape=["N", 2, 4, 4])
    with pytest.raises(ModelError, match="not valid ONNX"):
        io.write_model(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that writes another opset than it says must not go unnoticed."""
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4])
    honest = onnx.save_model

    def another_opset(proto, path, **options):
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        other.opset_import[0].version = 20
        honest(other, path, **options)

    monkeypatch.setattr(onnx, "save_model", another_opset)
    with pytest.raises(ModelError, match="asked for opset 18, the file has 20"):
        io.write_model(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_stripping_takes_every_word_and_no_number() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], "relu", doc_string="/home/somebody/net.py:3")
    node.metadata_props.add(key="stack_trace", value="/home/somebody/net.py:3")
    model = toy(node)
    model.doc_string = model.graph.doc_string = "/home/somebody"
    model.graph.metadata_props.add(key="k", value="/home/somebody")
    model.graph.input[0].metadata_props.add(key="k", value="/home/somebody")
    model.graph.value_info.append(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None, doc_string="/home/somebody")
    )
    assert b"somebody" in model.SerializeToString()
    io.strip(model)
    assert b"somebody" not in model.SerializeToString()
    assert (run(model, X) == np.maximum(X, 0)).all()


def test_pruning_drops_what_nobody_reads() -> None:
    model = toy(
        helper.make_node("Relu", ["x"], ["y"], "kept"),
        helper.make_node("Mul", ["x", "two"], ["unread"], "dead"),
        helper.make_node("Neg", ["unread"], ["also_unread"], "dead_too"),
        two=np.array(2, np.float32),
        never=np.zeros(5, np.float32),
    )
    io.prune(model)
    assert [node.name for node in model.graph.node] == ["kept"]
    assert not model.graph.initializer


def test_nodes_are_put_in_order_and_a_circle_is_named() -> None:
    model = toy(
        helper.make_node("Neg", ["b"], ["y"], "last"),
        helper.make_node("Relu", ["a"], ["b"], "middle"),
        helper.make_node("Abs", ["x"], ["a"], "first"),
    )
    io.tidy(model)
    assert [node.name for node in model.graph.node] == ["first", "middle", "last"]
    circle = toy(helper.make_node("Add", ["x", "y"], ["y"], "snake"))
    with pytest.raises(ModelError, match="snake"):
        io.tidy(circle)


def test_layers_are_named_after_their_weights() -> None:
    weight = np.zeros((2, 2, 1, 1), np.float32)
    model = toy(
        helper.make_node("Conv", ["x", "features.0.weight"], ["a"], "node_Conv_42"),
        helper.make_node("Conv", ["a", "features.0.weight"], ["b"], "node_Conv_43"),
        helper.make_node("Conv", ["b", "val_7"], ["y"], "node_Conv_44"),
        **{"features.0.weight": weight, "val_7": weight},
    )
    io.name_layers(model)
    names = [node.name for node in model.graph.node]
    assert names == ["features.0", "node_Conv_43", "node_Conv_44"]


def test_a_stamp_replaces_what_was_there() -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]))
    io.stamp(model, SPEC)
    io.stamp(model, SPEC.replace(labels=("x", "y")))
    assert io.spec_of(model, "toy").labels == ("x", "y")
    keys = [entry.key for entry in model.metadata_props]
    assert len(keys) == len(set(keys))
    assert keys.count(METADATA_KEY) == 1


def test_a_file_without_a_spec_is_told_how_to_get_one() -> None:
    with pytest.raises(ModelError, match=r"toy\.onnx.*--spec FILE\.json"):
        io.spec_of(toy(helper.make_node("Relu", ["x"], ["y"])), "toy.onnx")
