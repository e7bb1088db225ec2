"""Read, clean, stamp and write ONNX files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from catdog_edge import __version__
from catdog_edge.errors import ModelError, first_line
from catdog_edge.runtime.heat_map import KEY as HEAT_MAP_KEY
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system.files import atomic_write


def read_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file, with external weights.

    Raises `ModelError` if it, or a file with its weights, is missing or damaged.
    """
    return ir.from_proto(read_proto(path))


def read_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX file as protobuf; see `read_model`."""
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
    """List the files with external weights of an ONNX file, existing or not."""
    file = Path(path)
    return [file.parent / name for name in _outside(_parsed(file))]


def _outside(model: onnx.ModelProto) -> list[str]:
    helper = onnx.external_data_helper
    outside = filter(helper.uses_external_data, model.graph.initializer)
    return sorted({helper.ExternalDataInfo(tensor).location for tensor in outside})


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
    model: ir.Model, path: str | os.PathLike[str], spec: ModelSpec | None = None
) -> ir.Model:
    """Check a model and write it as one file, atomically; return what is read back from it.

    A spec is put into the metadata, which stay as they are without one. Raises `ModelError` where
    the model breaks ONNX's own rules.
    """
    if spec is not None:
        _stamp(model, spec)
    proto = to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path}: the graph is not valid ONNX ({first_line(error)})") from error
    with atomic_write(path) as temporary:
        onnx.save_model(proto, str(temporary), save_as_external_data=False)
        return read_model(temporary)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Convert to protobuf, without the shapes of what lies inside the graph."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that the model uses."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def clean(model: ir.Model) -> None:
    """Sort the nodes, drop unused parts, and metadata about the machine and the source.

    torch's exporter writes a stack trace with absolute paths for every node.
    """
    try:
        common.TopologicalSortPass()(model)
    except Exception as error:
        raise ModelError(f"the graph has a cycle ({first_line(error)})") from error
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None


def _stamp(model: ir.Model, spec: ModelSpec) -> None:
    """Write the spec into the metadata, and the plain keys that Ultralytics' readers expect."""
    version = spec.tool_version or __version__
    kept = {key: value for key, value in model.metadata_props.items() if key == HEAT_MAP_KEY}
    model.metadata_props.clear()
    model.metadata_props.update(
        {
            **kept,
            METADATA_KEY: spec.to_json(),
            "names": str(dict(enumerate(spec.labels))),
            "imgsz": str([spec.height, spec.width]),
            "task": "classify",
            "producer": f"catdog-edge {version}",
        }
    )
    model.producer_name, model.producer_version = "catdog-edge", version


def read_fp32(source: str | os.PathLike[str]) -> tuple[ir.Model, ModelSpec]:
    """Read a file to be rewritten in another precision, and its spec; `ModelError` unless fp32."""
    model, spec = read_model(source), read_spec(source)
    check_fp32(source, spec)
    return model, spec


def check_fp32(source: str | os.PathLike[str], spec: ModelSpec) -> None:
    """Raise `ModelError` unless the spec of a file says fp32."""
    if spec.precision != "fp32":
        raise ModelError(f"{source} is {spec.precision} already; give the fp32 file it was made of")


def operators(model: ir.Model) -> dict[str, int]:
    """Count the nodes of each kind, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph).most_common())
