"""Export a PyTorch network to one ONNX file that takes the resized frame."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from catdog_edge.errors import ModelError, first_line
from catdog_edge.spec import Layout, ModelSpec
from catdog_edge.training.models.registry import TIMM
from exporters.formats.suppress_logging import suppress_logging
from exporters.graph import simplify
from exporters.graph.onnx_file import clean, operators, opset_of, write_model
from exporters.graph.postprocessing import add_outputs
from exporters.graph.preprocessing import add_input

TORCH_OPSET = 18
"""The oldest opset that torch's exporter writes itself. Older ones are made from it here:
torch's own way down leaves the file at 18 with no more than a log line when it fails."""


@dataclass(frozen=True)
class ExportReport:
    """The result of an export; its figures are read back from the file.

    `nodes_before` is the node count of torch's exporter, without pre- and postprocessing; `folded`
    describes what was folded into the first convolution.
    """

    path: Path
    layout: Layout
    opset: int
    ir_version: int
    nodes_before: int
    nodes: int
    operators: dict[str, int]
    folded: str


def export_onnx(
    network: nn.Module,
    spec: ModelSpec,
    path: str | os.PathLike[str],
    *,
    layout: Layout = "nhwc-uint8",
    batch: int | None = None,
    opset: int = simplify.DEFAULT_OPSET,
    logits: bool = False,
) -> ExportReport:
    """Write a network as one ONNX file with its spec inside, atomically.

    The input is `frames`, the output `probabilities` `float32 [N,K]`, calibrated.

    Args:
        network: Maps normalised `float32 [N,3,H,W]`, RGB, to logits `float32 [N,K]`.
        spec: Its spec; `layout` and `precision` are set to those of the file.
        path: The file to write.
        layout: `nhwc-uint8`: the resized frame as OpenCV stores it, `uint8 [N,H,W,3]`, BGR.
            `nchw-float`: `float32 [N,3,H,W]`, RGB, 0..1.
        batch: A fixed batch size; `None`: dynamic.
        opset: ONNX opset version.
        logits: Add the logits, before the temperature, as a second output `logits`.

    Raises:
        ModelError: The network cannot be exported, or not with that opset.
        CatdogError: The file cannot be written.
    """
    model = _trace(network, spec, opset, batch)
    nodes_before = len(model.graph)
    simplify.simplify(model)
    simplify.name_layers(model)
    model = simplify.set_opset(model, opset)
    folded = add_input(model, spec, layout, batch)
    add_outputs(model, spec, logits, batch)
    clean(model)
    model.graph.name = spec.architecture
    written = write_model(model, path, spec.replace(layout=layout, precision="fp32"))
    return ExportReport(
        path=Path(path),
        layout=layout,
        opset=opset_of(written),
        ir_version=written.ir_version,
        nodes_before=nodes_before,
        nodes=len(written.graph),
        operators=operators(written),
        folded=folded,
    )


def _trace(network: nn.Module, spec: ModelSpec, opset: int, batch: int | None) -> ir.Model:
    """Export the network alone with torch's exporter, in `opset` or the nearest it supports."""
    # A copy, in plain float32 and memory order: the caller's network stays as it is.
    network = copy.deepcopy(network).cpu().float().eval()
    if spec.architecture.startswith(TIMM):
        from timm.utils import reparameterize_model

        network = reparameterize_model(network)  # branches that were for training become one
    # Two pictures: torch takes a dimension of size one for a constant.
    example = torch.zeros(batch or 2, 3, *spec.size)
    shapes = None if batch else ({0: torch.export.Dim("N")},)
    asked = max(opset, TORCH_OPSET)
    try:
        with suppress_logging(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=asked,
                dynamic_shapes=shapes,
                input_names=["pictures"],
                output_names=["logits"],
                external_data=False,
                optimize=False,
                verbose=False,
            )
            assert program is not None
    except Exception as error:  # torch wraps whatever a network or a converter raises
        raise ModelError(
            f"torch cannot export {spec.architecture} with opset {asked} "
            f"({first_line(error.__cause__ or error)})"
        ) from error
    return program.model
