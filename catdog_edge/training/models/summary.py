"""The table of an architecture: its layers, what comes out of them, parameters, multiply-adds.

Knows nothing of data or training. One picture of zeros is passed through fresh weights, and
every layer reports what it did, so that the table cannot disagree with the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catdog_edge.training.models.registry import architecture

_HEADER = ("name", "layer", "output", "parameters", "multiply-adds")


@dataclass(frozen=True)
class Layer:
    """One call of one layer.

    Attributes:
        name: Where it stands in the network, for instance `features.0`.
        kind: Class and what it is made of, for instance `Conv2d 3-64, 3x3`.
        output: Shape of what comes out, without the batch.
        parameters: Its own; batch norm's running figures are not parameters.
        multiply_adds: Of convolutions and linear layers; additions of a bias, batch norms
            (which an export folds away), activations and pools are not counted.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layers(network: nn.Module, size: int) -> list[Layer]:
    """The layers of a network in the order in which they are called.

    Args:
        network: Takes `float32 [N,3,size,size]`; left in the mode it was in.
        size: Height and width of the input in pixels.
    """
    rows: list[Layer] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def report(_: nn.Module, __: object, output: torch.Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            shape = tuple(output.shape[1:])
            rows.append(Layer(name, _kind(module), shape, parameters, _work(module, output)))

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
    """The table that `catdog-edge info --arch NAME` prints, digits grouped by commas.

    Args:
        name: In the registry of `catdog_edge.training.models.registry`.
        classes: How many classes the head tells apart.

    Returns:
        Several lines without a last line break.

    Raises:
        ModelError: There is no architecture of that name.
    """
    entry = architecture(name)
    network = entry.build(classes)
    rows = layers(network, entry.size)
    body = [
        (
            row.name,
            row.kind,
            "x".join(str(side) for side in row.output),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.multiply_adds:,}" if row.multiply_adds else "",
        )
        for row in rows
    ]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    work = sum(row.multiply_adds for row in rows)
    total = ("total", "", f"{classes} classes", f"{parameters:,}", f"{work:,}")
    widths = [max(len(row[column]) for row in (_HEADER, *body, total)) for column in range(5)]
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
            _line(_HEADER, widths),
            rule,
            *(_line(row, widths) for row in body),
            rule,
            _line(total, widths),
            f"{work / 1e9:.2f} G multiply-adds a picture, "
            f"{4 * parameters / 1e6:.2f} MB of float32 weights",
        ]
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*words, *figures]).rstrip()


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


def _work(module: nn.Module, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        # Each number that comes out is one filter applied once.
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
