"""`catdog-edge import`: convert an ONNX file of another tool to a catdog-edge model."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from catdog_edge import __version__
from catdog_edge.errors import DataError, ModelError, PictureError, first_line, list_names
from catdog_edge.images.preprocess import resize
from catdog_edge.runtime.model_file import find_model
from catdog_edge.spec import (
    LARGEST_RESIZE,
    METADATA_KEY,
    ModelSpec,
    Normalization,
    ResizeStep,
    crop_and_squash,
    squash,
)
from catdog_edge.training.array_types import Float32, Pixels
from catdog_edge.training.data.folder_or_zip import SAMPLE, open_source
from catdog_edge.training.runs.provenance import git_commit
from exporters.checks.acceptance import Verification
from exporters.checks.file_check import ReferenceModel, check_file
from exporters.checks.foreign_predictor import ForeignPredictor, PixelScaling, find_ending
from exporters.checks.predictors import OnnxPredictor
from exporters.checks.validation_data import ValidationSet
from exporters.graph.foreign_network import (
    Ending,
    ForeignInput,
    ForeignLayout,
    add_byte_input,
    check_operators,
    find_sigmoid,
    read_input,
    to_network,
)
from exporters.graph.onnx_file import clean, opset_of, read_model, write_model
from exporters.graph.postprocessing import add_outputs
from exporters.graph.preprocessing import add_input
from exporters.info import megabytes
from exporters.output_folder import scratch_folder

log = logging.getLogger(__name__)

Colours = tuple[float, float, float]

FEW = 8  # images on which logits are told from probabilities
IMAGENET = "imagenet"


@dataclass(frozen=True)
class ImportOptions:
    """The options of `catdog-edge import`; `None`: as in the file."""

    file: Path
    labels: str | tuple[str, ...] | None
    size: int | None = None
    mean: Colours | None = None
    std: Colours | None = None
    scale: float | None = None
    layout: ForeignLayout | None = None
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["squash", "crop"] | None = None
    output: str | None = None
    data: str | None = None
    limit: int = 64
    out: Path | None = None


@dataclass(frozen=True)
class Imported:
    """The new file, how it was made, and its agreement with the foreign one."""

    path: Path
    steps: tuple[str, ...]
    source: str
    verification: Verification

    def to_json(self) -> str:
        """Return one JSON document."""
        document = {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "steps": self.steps,
            "pictures": self.source,
            "verification": self.verification.to_dict(),
        }
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        size = megabytes(self.path.stat().st_size)
        lines = [f"{'file':<20}{self.path}, {size}", *(f"{'':<20}{text}" for text in self.steps)]
        return "\n".join([*lines, str(self.verification), f"{'compared on':<20}{self.source}"])


def import_onnx(options: ImportOptions) -> Imported:
    """Convert a file of another tool, and compare the two on images.

    Raises `ModelError` if the file is damaged or unsupported, `DataError` if the images do not
    exist, and `GateError` if the new file disagrees; nothing is written then.
    """
    file, out = options.file, options.out
    out = out if out is not None else file.with_name(f"{file.stem}-imported.onnx")
    if not file.exists():
        raise ModelError(f"there is no file {file}; name the ONNX file of the other program")
    find_model(file)
    model = read_model(file)
    if METADATA_KEY in model.metadata_props:
        raise ModelError(f"{file} is a file of catdog-edge already; there is nothing to import")
    if out.resolve() == file.resolve():
        raise ModelError(f"{out} is the file that is read; give --out another name")
    check_operators(model, str(file))
    options = _with_metadata(options, model.metadata_props)
    source = _sized(read_input(model, str(file), options.layout), options)
    spec, pixels = _spec(options, source)
    foreign = ForeignPredictor(file, source, pixels)
    validation = _pictures(options, spec.resize)
    values = _read_output(foreign, validation.images[:FEW], source.batch, options, spec)
    foreign.ending = _ending(values, foreign.output, model, options.file)
    foreign.spec = spec
    before = len(model.graph)
    model = to_network(model, str(file), source, foreign.output, len(spec.labels), foreign.ending)
    steps = [
        f"input {source.name}: {source.layout}, {'BGR' if pixels.bgr else 'RGB'}, "
        f"{source.height}x{source.width}, batch {source.batch or 'of any size'}; "
        f"{_add_input(model, spec, source, pixels)}",
        f"output {foreign.output}: {foreign.ending} of {len(spec.labels):,} classes"
        f"{'; softmax added' if foreign.ending != 'probabilities' else ''}",
    ]
    add_outputs(model, spec, logits=True, batch=source.batch)
    clean(model)
    model.graph.name = spec.architecture
    steps.append(f"graph: opset {opset_of(model)}, {before} nodes simplified to {len(model.graph)}")
    with scratch_folder() as scratch:
        made = scratch / out.name
        model = write_model(model, made, spec)
        ours = OnnxPredictor(made, name=out.name)
        checked = check_file(ours, out.name, ReferenceModel(foreign, validation), logits=True)
    checked.verification.require(out.name)
    found = checked.verification.comparison
    figures = {"difference": found.difference, "images": found.images, "on": validation.source}
    del model.graph.outputs[1:]  # the logits, which were compared as well
    write_model(model, out, spec.replace(metrics={"import": figures}))
    return Imported(out, tuple(steps), validation.source, checked.verification)


def _with_metadata(options: ImportOptions, metadata: Mapping[str, str]) -> ImportOptions:
    """Fill in missing options from the metadata of an Ultralytics export."""
    task = metadata.get("task")
    if task not in (None, "classify"):
        raise ModelError(f"{options.file}: its task is {task}; only classifiers are imported")
    if task is None or "names" not in metadata:
        return options
    try:
        names = ast.literal_eval(metadata["names"])
        labels = tuple(str(names[index]) for index in range(len(names)))
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        raise ModelError(
            f"{options.file}: its metadata names is damaged ({first_line(error)}); give --labels"
        ) from error
    return replace(options, labels=options.labels or labels, resize=options.resize or "crop")


def _add_input(model: ir.Model, spec: ModelSpec, source: ForeignInput, pixels: PixelScaling) -> str:
    if not source.as_bytes:
        return add_input(model, spec, "nhwc-uint8", source.batch, bgr=pixels.bgr)
    add_byte_input(model, source, pixels.bgr)
    return "its own normalisation kept"


def _sized(source: ForeignInput, options: ImportOptions) -> ForeignInput:
    """Return the input with height and width, from the file or `--size`."""
    most = LARGEST_RESIZE // 2  # of a model: `squash` goes through twice its size
    if options.size is not None and options.size > most:
        raise ModelError(f"{options.file}: --size is at most {most:,}, got {options.size:,}")
    height, width = source.height or options.size, source.width or options.size
    if height is None or width is None:
        raise ModelError(
            f"{options.file}: its input {source.name} takes images of any size; give --size, the "
            "one that it was trained with"
        )
    if options.size not in (None, height) or options.size not in (None, width):
        raise ModelError(
            f"{options.file}: its input {source.name} takes {height}x{width}; leave out --size"
        )
    return replace(source, height=height, width=width)


def _spec(options: ImportOptions, source: ForeignInput) -> tuple[ModelSpec, PixelScaling]:
    """Make the spec of the model, and the preprocessing of its original code."""
    given = (options.mean, options.std, options.scale)
    if source.as_bytes and any(value is not None for value in given):
        raise ModelError(
            f"{options.file}: its input {source.name} takes bytes, so the normalisation is inside; "
            "leave out --mean, --std and --scale"
        )
    scale = 255.0 if options.scale is None else options.scale
    mean, std = options.mean or (0.0, 0.0, 0.0), options.std or (1.0, 1.0, 1.0)
    bgr = options.colour == "bgr"
    pixels = PixelScaling(bgr, scale, mean, std)
    if source.as_bytes:
        scale = 1.0
    size = (source.height or 0, source.width or 0)
    labels = options.labels
    if not isinstance(labels, tuple):
        labels = read_labels(labels, options.file)
    data = options.file.read_bytes()
    try:
        steps = squash(*size)
        if options.resize == "crop":
            steps = (ResizeStep(**{**vars(crop_and_squash(*size)[0]), "crop": 1.0}), steps[1])
        spec = ModelSpec(
            architecture=f"imported:{options.file.stem}",
            labels=labels,
            height=size[0],
            width=size[1],
            resize=steps,
            normalization=Normalization(mean=_times(scale, mean, bgr), std=_times(scale, std, bgr)),
            trained_on={"imported": options.file.name, "sha256": hashlib.sha256(data).hexdigest()},
            tool_version=__version__,
            git_commit=git_commit(),
        )
    except ValueError as error:
        raise ModelError(f"{options.file}: {error}; correct the options") from error
    return spec, pixels


def _times(scale: float, values: Colours, bgr: bool) -> Colours:
    """Convert for the spec: on 0..255, in the order R, G, B."""
    first, green, last = (scale * value for value in values)
    return (last, green, first) if bgr else (first, green, last)


def read_labels(text: str | None, file: Path) -> tuple[str, ...]:
    """Read `--labels`: names with commas, `imagenet`, a file with one per line, or `config.json`.

    The last is from a Hugging Face model; its `id2label` has the names.
    """
    if text is None:
        raise ModelError(
            f"{file}: it does not say what its outputs mean; give --labels: names (cat,dog), a "
            f"file with one a line, or {IMAGENET}"
        )
    if text == IMAGENET:
        import torchvision

        names = torchvision.models.get_model_weights("resnet18").DEFAULT.meta["categories"]
        twice = {name for name, count in Counter(names).items() if count > 1}
        # Two cranes and two maillots: the index tells them apart.
        return tuple(f"{n} ({i})" if n in twice else n for i, n in enumerate(names))
    if "," in text and not os.path.isfile(text):  # noqa: PTH113 - it may be long
        return tuple(part.strip() for part in text.split(","))
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
        if text.endswith(".json"):
            names = json.loads(content)["id2label"]
            return tuple(names[str(index)] for index in range(len(names)))
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot read the labels {text}: {reason}; give names (cat,dog), a text file in UTF-8 "
            f"with one a line, a config.json with id2label, or {IMAGENET}"
        ) from error
    return tuple(line.strip() for line in content.splitlines() if line.strip())


def _pictures(options: ImportOptions, steps: tuple[ResizeStep, ...]) -> ValidationSet:
    """Read evenly spaced images to compare on; without data, drawings."""
    source = open_source(options.data or SAMPLE)
    names = list(source.pictures)
    places = np.linspace(0, len(names) - 1, min(options.limit, len(names))).astype(int)
    images, files = [], []
    for name in [names[place] for place in places]:
        try:
            images.append(resize(source.frame(name), steps))
            files.append(name)
        except PictureError as error:
            log.info(f"note: {name} is left out: {error}")
    if not images:
        raise DataError(f"{source.name} has no image that can be read; name others with --data")
    what = "drawings" if options.data in (None, SAMPLE) else f"images of {Path(source.name).name}"
    return ValidationSet(np.stack(images), None, tuple(files), f"{len(images)} {what}")


def _read_output(
    foreign: ForeignPredictor,
    images: Pixels,
    batch: int | None,
    options: ImportOptions,
    spec: ModelSpec,
) -> Float32:
    """Find the output with one value per class, and return it, `float32 [N,K]`.

    `batch` is the fixed one of the file: N where there is one.
    """
    found = foreign.outputs(images)
    classes, count = len(spec.labels), batch or len(images)
    shown = "; ".join(f"{k} {v.dtype} {list(v.shape)}" for k, v in found.items())
    if options.output is not None and options.output not in found:
        raise ModelError(f"{options.file}: it has no output {options.output}, but {shown}")
    sizes = (classes, 1) if classes == 2 else (classes,)
    fits = [
        name
        for name, value in found.items()
        if options.output in (None, name)
        and value.dtype == np.float32
        and value.ndim >= 2
        and value.size in [count * size for size in sizes]
    ]
    if len(fits) > 1:
        raise ModelError(
            f"{options.file}: several outputs have a value for each of the {classes} labels: "
            f"{list_names(fits)}; choose one with --output"
        )
    if not fits:
        raise ModelError(
            f"{options.file}: expected an output float32 with a value for each of the {classes:,} "
            f"labels, found {shown} for {count} image{'s' * (count > 1)}; give as many --labels as "
            "it has values (a classifier has one row an image; detectors are not imported)"
        )
    foreign.output = fits[0]
    values: Float32 = found[foreign.output].reshape(count, -1)
    return values


def _ending(values: Float32, output: str, model: ir.Model, file: Path) -> Ending:
    """Infer the kind of an output from its values, and of a single one from the graph."""
    if not np.isfinite(values).all():
        raise ModelError(
            f"{file}: its output {output} is not finite; check --mean, --std and --scale"
        )
    value = next(one for one in model.graph.outputs if one.name == output)
    ending = find_ending(values, find_sigmoid(value) is not None)
    if ending == "one logit" and values.min() >= 0 and values.max() <= 1:
        raise ModelError(
            f"{file}: its output {output} is in 0..1 but no Sigmoid's: a logit or a probability; "
            "if it is a logit, name more varied images with --data, else export it again with a "
            "value for each label"
        )
    return ending
