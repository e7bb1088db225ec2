"""The layers of an architecture: output shapes, parameters, multiply-adds.

Measured with forward hooks on one blank image, so the table cannot disagree with the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catdog_edge.system.console import align, widths
from catdog_edge.training.models.registry import architecture


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer.

    Biases, batch norms (which an export folds away), activations and pools have no multiply-adds.
    """

    name: str  # its place in the network, for instance `features.0`
    kind: str  # class and shape, for instance `Conv2d 3-64, 3x3`
    output: tuple[int, ...]  # without the batch
    parameters: int  # without running statistics
    multiply_adds: int


def summarize_layers(network: nn.Module, size: int) -> list[LayerSummary]:
    """List the layers of a network in the order in which they are called on a square image.

    Examples:
        >>> layers = summarize_layers(architecture("simple_cnn").build(2), 224)
        >>> sum(layer.multiply_adds for layer in layers)
        2356104960
    """
    rows: list[LayerSummary] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def report(_: nn.Module, __: object, output: torch.Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            work = 0
            if isinstance(module, nn.Conv2d | nn.Linear):  # a weight's row gives one value
                work = output[0].numel() * module.weight[0].numel()
            shape = tuple(output.shape[1:])
            rows.append(LayerSummary(name, _kind(module), shape, parameters, work))

        return module.register_forward_hook(report)

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return rows


def architecture_table(name: str, classes: int = 2) -> str:
    """Format the table of `catdog-edge info --arch NAME`, without a last line break."""
    entry = architecture(name)
    rows = summarize_layers(entry.build(classes), entry.size)
    parameters = sum(row.parameters for row in rows)
    work = sum(row.multiply_adds for row in rows)
    cells: list[tuple[str, ...]] = [("name", "layer", "output", "parameters", "multiply-adds")]
    for row in rows:
        shape = "x".join(str(side) for side in row.output)
        counts = (f"{n:,}" if n else "" for n in (row.parameters, row.multiply_adds))
        cells.append((row.name, row.kind, shape, *counts))
    cells.append(("total", "", f"{classes} classes", f"{parameters:,}", f"{work:,}"))
    rule = ["-" * width for width in widths(cells)]
    lines = align([cells[0], rule, *cells[1:-1], rule, cells[-1]], left=3)
    mean, std = (
        "/".join(f"{value:g}" for value in dict.fromkeys(values))
        for values in (entry.normalization.mean, entry.normalization.std)
    )
    head = [
        f"{entry.name}: {entry.summary}",
        f"input 3x{entry.size}x{entry.size}, RGB, (value - {mean}) / {std}",
        "",
    ]
    sizes = f"{work / 1e9:.2f} G multiply-adds per image, {4 * parameters / 1e6:.2f} MB of float32"
    return "\n".join([*head, *lines, f"{sizes} weights"])


def _kind(module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, nn.Conv2d):
        kind += f" {module.in_channels}-{module.out_channels}, "
        kind += "x".join(str(side) for side in module.kernel_size)
        if module.stride != (1, 1):
            kind += f", stride {module.stride[0]}"
        if module.groups != 1:
            kind += f", groups {module.groups}"
    elif isinstance(module, nn.Linear):
        kind += f" {module.in_features}-{module.out_features}"
    elif isinstance(module, nn.MaxPool2d):
        kind += f" {module.kernel_size}"
    return kind
