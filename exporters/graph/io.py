"""An ONNX graph as a thing to read, rewrite, clean, stamp and write. Needs onnx.

Knows nothing of torch, of pictures or of what a network means; it never runs a model. Every
function changes the model that it is given, unless it says otherwise.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from catdog_edge import __version__
from catdog_edge.errors import ModelError, first_line
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system.files import atomic_write

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that hold weights."""


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file, with the weights that it keeps in other files.

    Raises:
        ModelError: There is none, or it is truncated, damaged or of another kind, or a file
            with its weights is missing.
    """
    file = Path(path)
    model = _parsed(file)
    for name in _outside(model):
        if not (file.parent / name).is_file():
            raise ModelError(
                f"{file}: its weights are in a second file, {file.parent / name}, which is not "
                "there; copy it beside, under that name"
            )
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(file.parent))
    except Exception as error:  # a path that leads elsewhere, a file that is too short
        raise ModelError(
            f"{file}: its weights are in a second file, which does not fit "
            f"({first_line(error)}); copy both files again"
        ) from error
    return model


def files_beside(path: str | os.PathLike[str]) -> list[Path]:
    """The other files in which an ONNX file keeps weights, there or not.

    Raises:
        ModelError: See `read_model`.
    """
    file = Path(path)
    return [file.parent / name for name in _outside(_parsed(file))]


def _outside(model: onnx.ModelProto) -> list[str]:
    return sorted(
        {
            entry.value
            for tensor in model.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def _parsed(file: Path) -> onnx.ModelProto:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}; check the name") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        if not model.graph.node or not model.opset_import:
            raise ValueError("it holds no graph")
    except Exception as error:  # protobuf raises its own kinds, not even a common one
        raise ModelError(
            f"{file} is truncated or not an ONNX file; copy it again or export it again"
        ) from error
    return model


def write_model(
    model: onnx.ModelProto, path: str | os.PathLike[str], spec: ModelSpec | None = None
) -> None:
    """Check a model and write it as one file, atomically; then read it back.

    Args:
        model: The model.
        path: The file to write.
        spec: Stamp this into the metadata; `None` leaves them as they are.

    Raises:
        ModelError: The model breaks ONNX's own rules, or what was written has another opset
            or IR version than the model in memory.
        CatdogError: The file cannot be written.
    """
    if spec is not None:
        stamp(model, spec)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path}: the graph is not valid ONNX ({first_line(error)})") from error
    with atomic_write(path) as temporary:
        onnx.save_model(model, str(temporary), save_as_external_data=False)
        written = read_model(temporary)
        for name, wanted, found in (
            ("opset", opset_of(model), opset_of(written)),
            ("IR version", model.ir_version, written.ir_version),
        ):
            if wanted != found:
                raise ModelError(f"{path}: asked for {name} {wanted}, the file has {found}")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else 0


def name_layers(model: onnx.ModelProto) -> None:
    """Name layers after their weights: `features.0` where they are `features.0.weight`.

    torch's exporter numbers them, which tells a reader of a report nothing.
    """
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type in LAYERS and node.input[1].endswith(".weight"):
            name = node.input[1].removesuffix(".weight")
            if name not in taken:
                node.name = name
                taken.add(name)


def strip(model: onnx.ModelProto) -> None:
    """Drop what only describes the machine and the source: documentation and node metadata.

    torch's exporter writes a stack trace with absolute paths for every node.
    """
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    _strip_graph(model.graph)
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        for node in function.node:
            _strip_node(node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    del graph.value_info[:]
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: onnx.NodeProto) -> None:
    node.ClearField("doc_string")
    node.ClearField("metadata_props")
    for value in node.attribute:
        value.ClearField("doc_string")
        if value.HasField("g"):
            _strip_graph(value.g)


def prune(model: onnx.ModelProto) -> None:
    """Drop nodes whose results nobody reads, then constants that no node reads."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    while True:
        read = outputs | {name for node in graph.node for name in node.input}
        dead = [node for node in graph.node if not read.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def tidy(model: onnx.ModelProto) -> None:
    """Put nodes in an order in which every input exists before it is read."""
    graph = model.graph
    ready = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, placed = list(graph.node), []
    while waiting:
        now = [node for node in waiting if ready.issuperset(node.input)]
        if not now:
            raise ModelError(
                f"the graph has a cycle or reads what nothing makes: {waiting[0].name}"
            )
        waiting = [node for node in waiting if not ready.issuperset(node.input)]
        ready.update(name for node in now for name in node.output)
        placed.extend(now)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in placed]
    del graph.node[:]
    graph.node.extend(copies)


def stamp(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write the spec into the model's metadata, and the plain keys that other tools read.

    The plain keys are those that Ultralytics' exporter writes and its readers expect.
    """
    properties = {
        METADATA_KEY: spec.to_json(),
        "names": str(dict(enumerate(spec.labels))),
        "imgsz": str([spec.height, spec.width]),
        "task": "classify",
        "producer": f"catdog-edge {spec.tool_version or __version__}",
    }
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    model.producer_name = "catdog-edge"
    model.producer_version = spec.tool_version or __version__


def spec_of(model: onnx.ModelProto, source: str | os.PathLike[str]) -> ModelSpec:
    """Read the spec out of a model's metadata.

    Raises:
        ModelError: There is none, or it is damaged or too new; the message names the remedy.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelSpec.from_json(entry.value, source=str(source))
    raise ModelError(
        f"{source} is an ONNX file without a catdog-edge spec; export it with catdog-edge, "
        "or describe it by hand with --spec FILE.json"
    )


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each kind there are, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


class Constants:
    """The tensors of a model that never change, by name: initializers and `Constant` nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                for value in node.attribute:
                    if value.name == "value":
                        self._tensors[node.output[0]] = value.t

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return numpy_helper.to_array(self._tensors[name])

    def get(self, name: str) -> npt.NDArray[Any] | None:
        """The tensor of that name, or `None` where it is computed at run time."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def put(model: onnx.ModelProto, name: str, values: npt.ArrayLike) -> str:
    """Add a constant, or replace the one of that name; gives the name back."""
    tensor = numpy_helper.from_array(np.array(values), name)
    for present in model.graph.initializer:
        if present.name == name:
            present.CopyFrom(tensor)
            return name
    model.graph.initializer.append(tensor)
    return name


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    for value in node.attribute:
        if value.name == name:
            return onnx.helper.get_attribute_value(value)
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set a node's attribute, new or present."""
    for present in [entry for entry in node.attribute if entry.name == name]:
        node.attribute.remove(present)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def readers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that read a tensor."""
    return [node for node in model.graph.node if name in node.input]


def maker(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    """The node that makes a tensor, or `None`: an input or a constant."""
    return next((node for node in model.graph.node if name in node.output), None)


def rename(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    """Let nodes that read or make `old` read or make `new`."""
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
