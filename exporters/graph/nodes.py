"""Read and build the nodes and constants of an `onnx_ir` graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def add_node(
    graph: ir.Graph,
    kind: str,
    inputs: Sequence[ir.Value | None],
    output: str,
    name: str = "",
    **attributes: Any,
) -> ir.Value:
    """Append a node, by default named as its output, which is returned.

    `graph.sort()` puts it in its place.
    """
    node = ir.node(kind, inputs, attributes, outputs=[ir.Value(name=output)], name=name or output)
    graph.append(node)
    return node.outputs[0]


def add_constant(graph: ir.Graph, name: str, values: npt.ArrayLike) -> ir.Value:
    """Add a constant to a graph."""
    value = ir.Value(name=name)
    set_constant(value, np.array(values))
    graph.register_initializer(value)
    return value


def set_constant(value: ir.Value, values: npt.NDArray[Any]) -> None:
    """Change values, shape and type of a constant."""
    value.const_value = ir.tensor(values, name=value.name)
    value.type = ir.TensorType(value.const_value.dtype)
    value.shape = ir.Shape(values.shape)


def is_constant(value: ir.Value | None) -> bool:
    """Check whether a value is an initializer or a `Constant` node, not computed at run time."""
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def constant(value: ir.Value | None) -> npt.NDArray[Any]:
    """Return the array of a value for which `is_constant` is true."""
    assert value is not None
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    """Return the node that computes a value, if it is of that kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    return node.attributes[name].value if name in node.attributes else default


def set_attributes(node: ir.Node, **attributes: Any) -> None:
    """Set attributes of a node, new or present."""
    for made in ir.convenience.convert_attributes(attributes):
        node.attributes[made.name] = made


def only_user(value: ir.Value | None, kind: str) -> ir.Node | None:
    """Return the only node that reads a value, if it is of that kind."""
    readers = [] if value is None else [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def find(graph: ir.Graph, name: str) -> ir.Value | None:
    """Find the output of a node by its name."""
    return next((v for node in graph for v in node.outputs if v.name == name), None)
