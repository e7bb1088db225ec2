"""The layers of an architecture: output shapes, parameters, multiply-adds.

Measured with forward hooks on one blank image, so the table cannot disagree with the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catdog_edge.training.models.registry import architecture

_HEADER = ("name", "layer", "output", "parameters", "multiply-adds")


@dataclass(frozen=True)
class LayerSummary:
    """One call of one layer.

    Attributes:
        name: Its place in the network, for instance `features.0`.
        kind: Class and shape, for instance `Conv2d 3-64, 3x3`.
        output: Shape of the output, without the batch.
        parameters: Its own; running statistics of batch norms do not count.
        multiply_adds: Of convolutions and linear layers; biases, batch norms (which an export
            folds away), activations and pools do not count.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize_layers(network: nn.Module, size: int) -> list[LayerSummary]:
    """List the layers of a network in the order in which they are called.

    Args:
        network: Takes `float32 [N,3,size,size]`; left in the mode it was in.
        size: Height and width of the input in pixels.

    Example:
        >>> layers = summarize_layers(architecture("simple_cnn").build(2), 224)
        >>> sum(layer.multiply_adds for layer in layers)
        2356104960
    """
    rows: list[LayerSummary] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def report(_: nn.Module, __: object, output: torch.Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            shape = tuple(output.shape[1:])
            work = _multiply_adds(module, output)
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
    """Format the table of `catdog-edge info --arch NAME`.

    Args:
        name: In `catdog_edge.training.models.registry`.
        classes: Number of classes of the head.

    Returns:
        Several lines without a last line break.

    Raises:
        ModelError: There is no architecture of that name.
    """
    entry = architecture(name)
    rows = summarize_layers(entry.build(classes), entry.size)
    parameters = sum(row.parameters for row in rows)
    work = sum(row.multiply_adds for row in rows)
    cells: list[tuple[str, ...]] = [_HEADER]
    for row in rows:
        shape = "x".join(str(side) for side in row.output)
        counts = (f"{n:,}" if n else "" for n in (row.parameters, row.multiply_adds))
        cells.append((row.name, row.kind, shape, *counts))
    cells.append(("total", "", f"{classes} classes", f"{parameters:,}", f"{work:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    size = f"{entry.size}x{entry.size}"
    mean, std = (
        "/".join(f"{value:g}" for value in dict.fromkeys(values))
        for values in (entry.normalization.mean, entry.normalization.std)
    )
    return "\n".join(
        [
            f"{entry.name}: {entry.summary}",
            f"input 3x{size}, RGB, (value - {mean}) / {std}",
            "",
            lines[0],
            rule,
            *lines[1:-1],
            rule,
            lines[-1],
            f"{work / 1e9:.2f} G multiply-adds per image, "
            f"{4 * parameters / 1e6:.2f} MB of float32 weights",
        ]
    )


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


def _multiply_adds(module: nn.Module, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
