"""`catdog-edge export`: from a checkpoint to checked files in a folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from catdog_edge import __version__
from catdog_edge.errors import DataError, ModelError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs.provenance import git_commit
from catdog_edge.training.runs.run_folder import find_checkpoint, run_of
from exporters.checks.predictors import OnnxPredictor
from exporters.checks.validation_data import find_data
from exporters.export_report import Exported
from exporters.export_steps import ExportOptions, ExportSteps
from exporters.graph.onnx_file import check_fp32, opset_of, read_model
from exporters.output_folder import output_folder, scratch_folder

log = logging.getLogger(__name__)

__all__ = ["ExportOptions", "Exported", "export"]


def export(options: ExportOptions) -> Exported:
    """Export, check, and quantize as requested.

    All files are moved into the folder at the end; a step that fails leaves it unchanged.

    Raises:
        CatdogError: Weights or data are unusable, or a file cannot be made or written.
        GateError: The fp32 file disagrees with PyTorch; nothing was kept.
    """
    weights = find_checkpoint(options.weights)
    run = run_of(weights)
    network = None
    if weights.suffix in (".onnx", ".ort"):
        options, spec = _imported(options, weights)
    else:
        network, spec = load_checkpoint(weights)
        _check_labels(spec, weights)
        spec = spec.replace(tool_version=__version__, git_commit=git_commit())
    data = find_data(spec, weights, run, options.data)
    calibration = None
    if options.quantize in ("auto", "static", "all"):  # before any work: it needs training images
        try:
            calibration = data.calibration(spec, options.calibration_pictures)
        except DataError as error:
            if options.quantize != "auto":
                raise
            log.info(f"note: no static int8 file: {error}")
    validation = data.validation(spec, options.limit)
    folder = options.out if options.out is not None else weights.parent
    log.info(
        f"export: {weights} ({spec.architecture}), checked on {validation.source}, into {folder}"
    )
    with output_folder(folder), scratch_folder() as scratch:
        steps = ExportSteps(options, validation, folder, scratch)
        if network is None:
            steps.imported(weights)
        else:
            steps.fp32(network, spec, weights.name)
        if options.quantize in ("auto", "dynamic", "all"):
            steps.dynamic()
        if calibration is not None:
            steps.static(calibration, f"training images of {data.name}")
        if options.half or options.target is not None:
            steps.half()
        if options.format == "ort":
            steps.ort()
        return steps.finish(weights.name, data.name)


def _imported(options: ExportOptions, weights: Path) -> tuple[ExportOptions, ModelSpec]:
    """Return the spec of an imported file, and the options with what its graph determines.

    Raises `ModelError` where they ask for another graph: it is copied, not made again.
    """
    model = OnnxPredictor(weights)
    if "imported" not in model.spec.trained_on:
        raise ModelError(f"{weights} is exported already; name the checkpoint it was made from")
    if weights.suffix == ".ort":
        raise ModelError(
            f"{weights} is in ONNX Runtime's own format; give the .onnx file it was made of"
        )
    check_fp32(weights, model.spec)  # the int8 and fp16 files of an imported one have its spec
    of_graph: dict[str, Any] = {
        "layout": model.spec.layout,
        "batch": model.fixed_batch,
        "opset": opset_of(read_model(weights)),
        "logits": False,
    }
    for name, value in of_graph.items():
        if getattr(options, name) not in (getattr(ExportOptions, name), value):
            raise ModelError(
                f"{weights} is an imported file, whose graph stays as it is; leave out --{name}"
            )
    return replace(options, **of_graph), model.spec


def _check_labels(spec: ModelSpec, weights: Path) -> None:
    """Reject labels that are not valid Unicode, for example from a CSV in another encoding."""
    for label in spec.labels:
        try:
            label.encode()
        except UnicodeEncodeError:
            raise ModelError(
                f"{weights}: the label {label!a} is not valid Unicode, and a file of ONNX can "
                "carry no other; save the table of labels as UTF-8 and train again"
            ) from None
