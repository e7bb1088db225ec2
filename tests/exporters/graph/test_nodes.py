"""Nodes and constants of a small graph."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

from onnx import helper
from support.models.toy_graphs import X, run, toy

from exporters.graph import nodes


def test_a_node_is_added_named_found_and_run() -> None:
    model = toy(helper.make_node("Relu", ["x"], ["y"]), shape=["N", 2, 4, 4])
    graph = model.graph
    two = nodes.add_constant(graph, "two", np.float32(2))
    value = nodes.add_node(graph, "Mul", [graph.outputs[0], two], "doubled")
    assert value.producer().name == "doubled"
    assert nodes.add_node(graph, "Neg", [value], "less", "negated").producer().name == "negated"
    assert nodes.find(graph, "doubled") is value
    assert nodes.find(graph, "halved") is None
    value.type, value.shape = graph.outputs[0].type, graph.outputs[0].shape
    graph.outputs[:] = [value]
    assert np.array_equal(run(model), 2 * np.maximum(X, 0))


def test_who_makes_and_who_reads_a_value() -> None:
    model = toy(
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Sub", ["c", "b"], ["y"]),
        one=np.float32([1]),
    )
    x, (relu, neg, add, _) = model.graph.inputs[0], model.graph
    assert nodes.producer(neg.inputs[0], "Relu") is relu
    assert nodes.producer(neg.inputs[0], "Neg") is nodes.producer(x, "Relu") is None
    assert nodes.producer(None, "Relu") is None
    assert nodes.only_user(x, "Relu") is relu
    assert nodes.only_user(x, "Neg") is nodes.only_user(None, "Relu") is None
    assert nodes.only_user(neg.outputs[0], "Add") is None  # it has two readers
    assert nodes.is_constant(add.inputs[1])
    assert not nodes.is_constant(add.inputs[0])
    assert not nodes.is_constant(None)
    assert nodes.constant(add.inputs[1]).tolist() == [1]


def test_constants_and_attributes_are_changed_in_place() -> None:
    model = toy(helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0), axes=np.int64([2]))
    [node] = model.graph
    assert (nodes.attribute(node, "keepdims"), nodes.attribute(node, "axis", 7)) == (0, 7)
    nodes.set_attributes(node, keepdims=1)
    nodes.set_constant(node.inputs[1], np.int64([2, 3]))
    assert node.inputs[1].shape.numpy() == (2,)
    assert run(model) == pytest.approx(X.sum((2, 3), keepdims=True), abs=1e-5)
