"""`catdog-edge info FILE`: print the contents of a checkpoint, an ONNX or ORT-format file.

Operators and multiply-adds need the onnx package; the rest does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catdog_edge.errors import ModelError
from catdog_edge.runtime.heat_map import HEAT_MAP
from catdog_edge.runtime.heat_map import KEY as HEAT_MAP_KEY
from catdog_edge.runtime.model_file import ZOO, describe, find_model, shipped_models
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system.packages import install_command
from exporters.checks.predictors import OnnxPredictor

SHOWN, MOST_LINES, LONGEST = 10, 60, 300
"""Entries of a list, lines of a group and characters of a text that people are shown."""

HEAT_MAP_OUTPUT = f"{HEAT_MAP} float [N, K, h, w] (on request: docs/heat-maps.md)"


@dataclass(frozen=True)
class Info:
    """Contents of a model file."""

    path: Path
    bytes: int  # with those of the files `beside` it that hold its weights
    spec: ModelSpec
    inputs: tuple[str, ...]  # name, type and shape of each, as text
    outputs: tuple[str, ...]
    graph: Mapping[str, Any]  # of `summarize_graph`; empty where it cannot be read
    note: str = ""  # why it cannot
    metadata: Mapping[str, str] = field(default_factory=dict)  # plain keys that other tools read
    beside: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()  # the models of the folder that was named, with their sizes
    by_place: str = ""  # input and output where the spec was given by hand; else empty
    checkpoint: bool = False  # whether it is PyTorch's weights, without normalisation, temperature
    card: str = ""  # of a model that ships: how it was made, figures, limits, as Markdown

    def to_dict(self) -> dict[str, Any]:
        """Convert to types of JSON."""
        return {
            "file": str(self.path),
            "bytes": self.bytes,
            "spec": json.loads(self.spec.to_json()),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "metadata": self.metadata,
            "files_beside": self.beside,
            "models_in_folder": self.folder,
            "spec_by_hand": self.by_place or None,
            "card": self.card or None,
            **self.graph,
        }

    def __str__(self) -> str:
        return self.text(whole=False)

    def text(self, whole: bool) -> str:
        """Return a human-readable summary; with `whole`, everything and the card."""
        rows = [("file", f"{self.path}, {megabytes(self.bytes)} ({self.bytes:,} bytes)")]
        rows += [("", f"with its weights in {name}, beside it") for name in self.beside]
        if self.folder:
            rows.append(("folder", ", ".join(self.folder)))
        if self.by_place:
            rows.append(("spec", f"given by hand; {self.by_place} by place"))
        rows += [*self._of_spec(), *self._of_graph()]
        if whole:
            metadata = sorted(self.metadata.items())
            rows += [(f"metadata {key}", _short(text)) for key, text in metadata]
            rows += [("trained on", text) for text in _flat(self.spec.trained_on)]
            rows += [("measured", text) for text in _flat(self.spec.metrics)]
        width = max(len(name) for name, _ in rows)
        lines, before = [], ""
        for name, text in rows:
            lines.append(f"{name if name != before else '':{width}}  {text}")
            before = name
        if self.card and whole:
            lines += ["", self.card.rstrip()]
        return "\n".join(lines)

    def _of_spec(self) -> list[tuple[str, str]]:
        spec, reject = self.spec, self.spec.rejection
        where = "not in the file; export puts it in" if self.checkpoint else "inside the file"
        labels = [f"{index} {name}" for index, name in enumerate(spec.labels)]
        many = f"{len(labels)} labels: " if len(labels) > SHOWN else ""
        mean, std = list(spec.normalization.mean), list(spec.normalization.std)
        score = f"{reject.score} is below {reject.threshold:g}" if reject else ""
        return [
            ("architecture", f"{spec.architecture}, {spec.precision}"),
            ("labels", f"{many}{_join_first(labels)}"),
            *(("input", text) for text in self.inputs),
            *(("output", text) for text in self.outputs),
            ("resize", "; then ".join(map(_step, spec.resize))),
            ("normalisation", f"(value - {mean}) / {std} on 0..255 in R, G, B, {where}"),
            ("temperature", f"{spec.temperature:.4g}, {where}"),
            ("rejection", f"neither, where {score}" if reject else "never"),
        ]

    def _of_graph(self) -> list[tuple[str, str]]:
        rows, graph = [], self.graph
        if graph:
            rows.append(("parameters", f"{graph['parameters']:,}"))
            rows.append(("multiply-adds", _count(graph["multiply_adds"])))
        if "operators" in graph:
            operators = ", ".join(f"{n} {kind}" for kind, n in graph["operators"].items())
            rows.append(("opset", f"{graph['opset']}, IR version {graph['ir_version']}"))
            rows.append(("operators", f"{operators} ({graph['nodes']} nodes)"))
        if self.note:
            rows.append(("layers" if self.checkpoint else "operators", self.note))
        made_by = f"catdog-edge {self.spec.tool_version} {self.spec.git_commit[:12]}"
        return [*rows, ("made by", made_by.strip())]


def read_info(file: str | Path | None, given: ModelSpec | None = None) -> Info:
    """Read the contents of a model file.

    This is a `.pt`, `.onnx` or `.ort` file, a run folder, of which `model.onnx` or else `best.pt`
    is read, the name of a shipped model, or `None` for the default model. `given` is the spec for
    an ONNX file without one. Raises `ModelError` if the file or its spec is invalid.
    """
    if file is not None and file not in shipped_models() and Path(file).is_dir():
        models = _models_in(Path(file))
        listed = tuple(f"{one.name} {megabytes(one.stat().st_size)}" for one in models)
        chosen = next((one for one in models if one.name == "model.onnx"), models[0])
        return replace(read_info(chosen, given), folder=listed)
    if file is not None and Path(file).suffix in (".pt", ".pth"):
        return _checkpoint(Path(file))
    found = find_model(file)
    assert found.path is not None
    path = found.path
    model = OnnxPredictor(path, given)
    custom = model.session.get_modelmeta().custom_metadata_map
    graph: dict[str, Any] = {}
    note = ""
    beside: list[Path] = []
    if path.suffix == ".ort":
        note = "not readable in ORT format; look at the .onnx file it was made from"
    else:
        try:
            from exporters.graph.graph_summary import summarize_graph
            from exporters.graph.onnx_file import files_beside, read_proto
        except ImportError:
            note = f"need the onnx package: {install_command('train')}"
        else:
            graph, beside = summarize_graph(read_proto(path)), files_beside(path)
    card = path.with_name(f"{path.name.partition('.')[0]}.md")
    ships = path.resolve().parent == ZOO.resolve() and card.is_file()
    return Info(
        path=path,
        bytes=sum(file.stat().st_size for file in (path, *beside)),
        spec=model.spec,
        inputs=tuple(map(describe, model.session.get_inputs())),
        outputs=(
            *map(describe, model.session.get_outputs()),
            *([HEAT_MAP_OUTPUT] if HEAT_MAP_KEY in custom else []),
        ),
        graph=graph,
        note=note,
        metadata={
            key: value for key, value in custom.items() if key not in (METADATA_KEY, HEAT_MAP_KEY)
        },
        beside=tuple(file.name for file in beside),
        by_place=model.by_place,
        card=card.read_text(encoding="utf-8") if ships else "",
    )


def _models_in(folder: Path) -> list[Path]:
    """List the models of a run, without `last.pt`, which is only for resuming."""
    found = sorted(
        one for one in folder.iterdir() if one.suffix in (".onnx", ".ort") or one.name == "best.pt"
    )
    if not found:
        raise ModelError(
            f"{folder} is a folder without a model (best.pt, .onnx or .ort); name the folder of a "
            "run that has finished an epoch, or a file"
        )
    return found


def read_spec_file(path: Path) -> ModelSpec:
    """Read a spec from a JSON file; `ModelError` if it is missing or invalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the spec {path}: {error}; check the name") from error
    return ModelSpec.from_json(text, source=str(path))


def _checkpoint(path: Path) -> Info:
    from catdog_edge.training.models.checkpoint import load_checkpoint
    from catdog_edge.training.models.summary import summarize_layers

    network, spec = load_checkpoint(path)
    graph: dict[str, Any] = {"parameters": sum(one.numel() for one in network.parameters())}
    graph["multiply_adds"] = None  # the count passes one square image through
    if spec.height == spec.width:
        layers = summarize_layers(network, spec.height)
        graph["multiply_adds"] = sum(layer.multiply_adds for layer in layers)
    return Info(
        path=path,
        bytes=path.stat().st_size,
        spec=spec,
        inputs=(f"float32 [N, 3, {spec.height}, {spec.width}], RGB, normalised (a checkpoint)",),
        outputs=(f"logits float32 [N, {spec.logits}]",),
        graph=graph,
        note=f"catdog-edge info --arch {spec.architecture}",
        checkpoint=True,
    )


def megabytes(size: int) -> str:
    """Format a size in megabytes."""
    return f"{size / 1e6:.2f} MB"


def _step(step: Any) -> str:
    where = " (an axis that is smaller is left alone)" if step.shrink_only else ""
    if step.crop:
        where += f", after a centre crop by {step.crop:g} (0 none, 1 a square)"
    return f"{step.interpolation} to {step.height}x{step.width}{where}"


def _count(number: int | None) -> str:
    if number is None:
        return "unknown (the size of a layer's output is not fixed in the file)"
    short = f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"
    return f"{short} ({number:,})"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)):
            shown = [f"{v:.4g}" if isinstance(v, float) else _short(str(v)) for v in value]
            lines.append(f"{name} {_join_first(shown) or 'none'}")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else _short(str(value))
            lines.append(f"{name} {text}")
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and {more} more lines, see --json"]


def _join_first(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more, see --json" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"
