from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

import onnx_ir as ir
from onnx import TensorProto, helper
from support.models.toy_graphs import X, run, toy, toy_proto

from catdog_edge.errors import ModelError
from catdog_edge.spec import METADATA_KEY, ModelSpec, Normalization, squash
from exporters.graph.onnx_file import (
    clean,
    files_beside,
    read_fp32,
    read_model,
    to_proto,
    write_model,
)

SPEC = ModelSpec("toy", ("a", "b"), 8, 8, squash(8, 8), Normalization((0,) * 3, (1,) * 3))


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4])
    path = tmp_path / "model.onnx"
    write_model(model, path)
    data = path.read_bytes()
    for name, content in (
        ("truncated", data[: len(data) // 2]),
        ("empty", b""),
        ("text", b"hello " * 50),
        ("zip", b"PK\x03\x04" + bytes(100)),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.onnx is truncated or not an ONNX file"):
            read_model(path)
        assert name
    with pytest.raises(ModelError, match="No such file"):
        read_model(tmp_path / "nothing.onnx")


def test_a_broken_graph_is_not_written(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["nowhere"], ["y"]), shape=["N", 2, 4, 4])
    with pytest.raises(ModelError, match="not valid ONNX"):
        write_model(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_whose_shapes_contradict_is_not_written(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 5])
    with pytest.raises(ModelError, match="not valid ONNX"):
        write_model(model, tmp_path / "model.onnx")


def test_stripping_takes_every_word_and_no_number() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], "relu", doc_string="/home/somebody/net.py:3")
    node.metadata_props.add(key="stack_trace", value="/home/somebody/net.py:3")
    model = toy_proto(node, shape=["N", 2, 4, 4])
    model.doc_string = model.graph.doc_string = "/home/somebody"
    model.graph.metadata_props.add(key="k", value="/home/somebody")
    model.graph.input[0].metadata_props.add(key="k", value="/home/somebody")
    model.graph.value_info.append(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None, doc_string="/home/somebody")
    )
    assert b"somebody" in model.SerializeToString()
    cleaned = ir.from_proto(model)
    clean(cleaned)
    assert b"somebody" not in to_proto(cleaned).SerializeToString()
    assert (run(cleaned) == np.maximum(X, 0)).all()


def test_pruning_drops_what_nobody_reads() -> None:
    model = toy(
        helper.make_node("Relu", ["x"], ["y"], "kept"),
        helper.make_node("Mul", ["x", "two"], ["unread"], "dead"),
        helper.make_node("Neg", ["unread"], ["also_unread"], "dead_too"),
        two=np.array(2, np.float32),
        never=np.zeros(5, np.float32),
    )
    clean(model)
    assert [node.name for node in model.graph] == ["kept"]
    assert not model.graph.initializers


def test_nodes_are_put_in_order_and_a_circle_is_named() -> None:
    model = toy(
        helper.make_node("Neg", ["b"], ["y"], "last"),
        helper.make_node("Relu", ["a"], ["b"], "middle"),
        helper.make_node("Abs", ["x"], ["a"], "first"),
    )
    clean(model)
    assert [node.name for node in model.graph] == ["first", "middle", "last"]
    circle = toy(helper.make_node("Add", ["x", "y"], ["y"], "snake"))
    with pytest.raises(ModelError, match="cycle"):
        clean(circle)


def test_a_new_spec_replaces_what_was_there(tmp_path: Path) -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4])
    path = tmp_path / "model.onnx"
    write_model(model, path, SPEC)
    write_model(read_model(path), path, SPEC.replace(labels=("x", "y")))
    write_model(read_model(path), path)
    assert ModelSpec.from_json(read_model(path).metadata_props[METADATA_KEY]).labels == ("x", "y")
    keys = [entry.key for entry in onnx.load(path).metadata_props]
    assert len(keys) == len(set(keys))
    assert keys.count(METADATA_KEY) == 1


def test_a_file_without_a_spec_is_told_how_to_get_one(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    write_model(toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4]), path)
    with pytest.raises(ModelError, match=r"toy\.onnx.*--spec FILE\.json"):
        read_fp32(path)


def test_outside_weights_are_listed_by_file(tmp_path: Path) -> None:
    """Two tensors in `b.bin`, one in `a.bin`, one inside: each file once, in order."""
    names = ("b.bin", "a.bin", "b.bin", "")
    nodes, before = [], "x"
    for number in range(len(names)):
        after = "y" if number == 3 else f"v{number}"
        nodes.append(helper.make_node("Add", [before, f"w{number}"], [after], f"n{number}"))
        before = after
    weights = {f"w{number}": np.full(4, number, np.float32) for number in range(4)}
    model = toy_proto(*nodes, shape=["N", 2, 4, 4], **weights)
    for tensor, name in zip(model.graph.initializer, names, strict=True):
        if name:
            (tmp_path / name).write_bytes(b"")
            onnx.external_data_helper.set_external_data(tensor, name, offset=0, length=16)
            tensor.ClearField("raw_data")
    (tmp_path / "a.bin").write_bytes(np.full(4, 1, np.float32).tobytes())
    (tmp_path / "b.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert files_beside(path) == [tmp_path / "a.bin", tmp_path / "b.bin"]
    read = read_model(path)
    assert run(read) == pytest.approx(X + 7 + 1 + 7 + 3)
    (tmp_path / "a.bin").unlink()
    assert files_beside(path) == [tmp_path / "a.bin", tmp_path / "b.bin"]
    with pytest.raises(ModelError, match=r"a\.bin, which is not there; copy it beside"):
        read_model(path)
    (tmp_path / "a.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match="second file, which does not fit"):
        read_model(path)
    write_model(toy(*nodes, shape=["N", 2, 4, 4], **weights), path)
    assert files_beside(path) == []
