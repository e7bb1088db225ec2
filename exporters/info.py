"""What is in a file: everything `catdog-edge info FILE` prints.

Knows how to read a checkpoint, an ONNX file and an ORT-format file without running them on
pictures. Operators and multiply-adds need the onnx package; the rest does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog_edge.errors import ModelError
from catdog_edge.modelfile import find_model
from catdog_edge.spec import METADATA_KEY, ModelSpec
from exporters.session import open_session, spec_in
from exporters.text import megabytes

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Info:
    """What is in a file.

    Attributes:
        path: The file.
        bytes: Its size.
        spec: What it says of itself.
        inputs: Name, type and shape of every input, in words.
        outputs: The same of the outputs.
        metadata: The plain keys that other tools read.
        graph: Opset, IR version, parameters, multiply-adds, operators; empty where it cannot be
            read (an ORT-format file, or no onnx package).
        note: Why `graph` is empty, if it is.
    """

    path: Path
    bytes: int
    spec: ModelSpec
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    graph: Mapping[str, Any]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path),
            "bytes": self.bytes,
            "spec": json.loads(self.spec.to_json()),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "metadata": dict(self.metadata),
            **self.graph,
        }

    def __str__(self) -> str:
        spec = self.spec
        reject = spec.rejection
        rows = [
            ("file", f"{self.path}, {megabytes(self.bytes)} ({self.bytes:,} bytes)"),
            ("architecture", f"{spec.architecture}, {spec.precision}"),
            ("labels", ", ".join(f"{index} {name}" for index, name in enumerate(spec.labels))),
            *(("input", text) for text in self.inputs),
            *(("output", text) for text in self.outputs),
            ("resize", "; then ".join(_step(step) for step in spec.resize)),
            (
                "normalisation",
                f"(value - {list(spec.normalization.mean)}) / {list(spec.normalization.std)} "
                "on 0..255 in R, G, B, inside the file",
            ),
            ("temperature", f"{spec.temperature:.4g}, inside the file"),
            (
                "rejection",
                "never"
                if reject is None
                else f"neither, where {reject.score} is below {reject.threshold:g}",
            ),
        ]
        if self.graph:
            operators = ", ".join(f"{n} {kind}" for kind, n in self.graph["operators"].items())
            rows += [
                ("parameters", f"{self.graph['parameters']:,}"),
                ("multiply-adds", _count(self.graph["multiply_adds"])),
                ("opset", f"{self.graph['opset']}, IR version {self.graph['ir_version']}"),
                ("operators", f"{operators} ({self.graph['nodes']} nodes)"),
            ]
        if self.note:
            rows.append(("operators", self.note))
        rows.append(("made by", f"catdog-edge {spec.tool_version} {spec.git_commit[:12]}".strip()))
        rows += [(f"metadata {key}", value) for key, value in sorted(self.metadata.items())]
        rows += [("trained on", text) for text in _flat(spec.trained_on)]
        rows += [("measured", text) for text in _flat(spec.metrics)]
        width = max(len(name) for name, _ in rows)
        lines, before = [], ""
        for name, text in rows:
            lines.append(f"{name if name != before else '':{width}}  {text}")
            before = name
        return "\n".join(lines)


def read_info(file: str | Path | None, given: ModelSpec | None = None) -> Info:
    """Read what is in a file.

    Args:
        file: A `.pt`, `.onnx` or `.ort` file, the name of a shipped model, or `None` for the
            default one.
        given: The spec of an ONNX file that has none.

    Raises:
        ModelError: It is missing, damaged, of another kind, or its spec is.
    """
    if file is not None and Path(file).suffix in (".pt", ".pth"):
        return _checkpoint(Path(file))
    found = find_model(file)
    assert found.path is not None
    path = found.path
    session = open_session(path, threads=1)
    spec = spec_in(session, path, given)
    custom = session.get_modelmeta().custom_metadata_map
    graph: dict[str, Any] = {}
    note = ""
    if path.suffix == ".ort":
        note = "not readable in ORT format; look at the .onnx file it was made from"
    else:
        try:
            from exporters.graph import read_model
        except ImportError:
            note = "need the onnx package: pip install 'catdog-edge[train]'"
        else:
            graph = graph_info(read_model(path))
    return Info(
        path=path,
        bytes=path.stat().st_size,
        spec=spec,
        inputs=tuple(_value(value) for value in session.get_inputs()),
        outputs=tuple(_value(value) for value in session.get_outputs()),
        metadata={key: value for key, value in custom.items() if key != METADATA_KEY},
        graph=graph,
        note=note,
    )


def read_spec_file(path: Path) -> ModelSpec:
    """Read a spec that was written by hand.

    Raises:
        ModelError: The file is not there or not a spec.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the spec {path}: {error}; check the name") from error
    return ModelSpec.from_json(text, source=str(path))


def graph_info(model: onnx.ModelProto) -> dict[str, Any]:
    """Count what a graph holds: `parameters`, `multiply_adds` (of one picture), `operators`."""
    from exporters import graph

    shapes = _shapes(model)
    # What quantization and the ends of the graph add are no parameters of the network.
    helpers = {
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    helpers |= {
        name
        for node in model.graph.node
        if node.op_type == "MatMulInteger"
        for name in node.input[2:]
    }
    constants = graph.Constants(model)
    ends = ("frames.mean", "frames.deviation", "frames.pad_grey")
    parameters = sum(
        constants[tensor.name].size
        for tensor in model.graph.initializer
        if tensor.name not in helpers
        and tensor.name not in ends
        and tensor.dims
        and tensor.data_type not in (7, 9)  # int64 and bool: shapes, axes and places
        and not tensor.name.endswith(("_scale", "_zero_point"))
    )
    return {
        "opset": graph.opset_of(model),
        "ir_version": int(model.ir_version),
        "parameters": int(parameters),
        "multiply_adds": sum(_multiply_adds(node, shapes) for node in model.graph.node),
        "nodes": len(model.graph.node),
        "operators": graph.operators(model),
    }


def _checkpoint(path: Path) -> Info:
    from catdog_edge.training.checkpoint import load_checkpoint

    network, spec = load_checkpoint(path)
    return Info(
        path=path,
        bytes=path.stat().st_size,
        spec=spec,
        inputs=(f"float32 [N, 3, {spec.height}, {spec.width}], RGB, normalised (a checkpoint)",),
        outputs=(f"logits float32 [N, {len(spec.labels)}]",),
        metadata={},
        graph={},
        note=f"{sum(p.numel() for p in network.parameters()):,} parameters; the layers: "
        f"catdog-edge info --arch {spec.architecture}",
    )


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of all tensors for a batch of one."""
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    axis = single.graph.input[0].type.tensor_type.shape.dim[0]
    axis.dim_value = 1
    del single.graph.value_info[:]
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    import math

    if node.op_type not in ("Conv", "Gemm", "MatMul", "MatMulInteger"):
        return 0
    weight, output = shapes.get(node.input[1], []), shapes.get(node.output[0], [])
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(weight[1:])
    # Each output is a sum over the weight's other axis.
    return math.prod(weight)


def _value(value: Any) -> str:
    shape = ", ".join(str(axis) for axis in value.shape)
    return f"{value.name} {value.type.removeprefix('tensor(').rstrip(')')} [{shape}]"


def _step(step: Any) -> str:
    where = " (an axis that is smaller is left alone)" if step.shrink_only else ""
    return f"{step.interpolation} to {step.height}x{step.width}{where}"


def _count(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.2f} {unit} ({number:,})"
    return f"{number:,}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name}: ")
        elif isinstance(value, float):
            lines.append(f"{name} {value:.6g}")
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
            lines.append(f"{name} {shown or 'none'}")
        else:
            lines.append(f"{name} {value}")
    return lines
