"""EfficientNet-Lite: inverted residuals with ReLU6 and without squeeze-and-excite.

Written from the description in the TensorFlow TPU repository (`models/official/efficientnet/lite`:
block table, scaling, batch norm epsilon 1e-3, dropout, inputs (value - 127) / 128) and Tan, Le:
EfficientNet, ICML 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from catdog_edge.training.models.depthwise_conv import depthwise, is_depthwise

STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip
"""Kernel, stride of the first block, expansion, channels, blocks; others keep size and channels."""

STEM, TOP = 32, 1280  # channels that are the same in the whole family


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's `SAME` padding: the output is ceil(size / stride) wide.

    With stride 2 an even size gets its odd pixel of padding below and to the right, as the
    published weights need; PyTorch pads alike on both sides.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        # Keeps the variance of the maps; a depthwise filter sees one plane, which is its fan_in.
        nn.init.kaiming_normal_(
            self.weight, mode="fan_in" if groups > 1 else "fan_out", nonlinearity="relu"
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[N,C,H,W]` to `[N,K,ceil(H/stride),ceil(W/stride)]`."""
        return self.convolve(maps, self.weight, self.bias)

    def convolve(
        self, maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Run `forward` with another weight and bias of the same shape."""
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side, stride, kernel in zip(maps.shape[2:], self.stride, self.kernel_size)
        )
        padding = (height // 2, width // 2)
        if height % 2 or width % 2:
            around = (width // 2, width - width // 2, height // 2, height - height // 2)
            maps, padding = nn.functional.pad(maps, around), (0, 0)
        fast_gradients = self.training and maps.device.type == "cpu" and padding[0] == padding[1]
        if fast_gradients and is_depthwise(weight, maps, self.groups):
            if torch.is_autocast_enabled("cpu"):
                kind = torch.get_autocast_dtype("cpu")
                maps, weight = maps.to(kind), weight.to(kind)
                bias = None if bias is None else bias.to(kind)
            return depthwise(maps, weight, bias, self.stride[0], padding[0])
        return nn.functional.conv2d(maps, weight, bias, self.stride, padding, groups=self.groups)


class ConvNormAct(nn.Sequential):
    """A `Conv2dSame`, its batch norm and, where it has one, its activation.

    A batch norm that is frozen in training is applied to the weights, once a step, which saves a
    pass over the maps. Outputs and gradients are the same up to rounding.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[N,C,H,W]` to `[N,K,ceil(H/stride),ceil(W/stride)]`."""
        convolution, norm = cast(Conv2dSame, self[0]), cast(Any, self[1])
        if not self.training or norm.training:
            for part in self:
                maps = part(maps)
            return maps
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = convolution.weight * gain[:, None, None, None]
        maps = convolution.convolve(maps, weight, norm.bias - norm.running_mean * gain)
        return nn.functional.relu6(maps, inplace=True) if len(self) > 2 else maps


def _layer(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> ConvNormAct:
    # PyTorch's momentum of 0.1: the published 0.01 is for runs of many thousand steps.
    convolution = Conv2dSame(inputs, outputs, kernel, stride, groups)
    activation = [nn.ReLU6()] if relu else []
    return ConvNormAct(convolution, nn.BatchNorm2d(outputs, eps=1e-3), *activation)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a skip connection where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _layer(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _layer(inner, inner, kernel, stride, groups=inner)
        self.project = _layer(inner, outputs, 1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[N,C,H,W]` to `[N,K,ceil(H/stride),ceil(W/stride)]`."""
        found: torch.Tensor = self.project(self.depthwise(self.expand(maps)))
        return maps + found if self.residual else found


def _widened(channels: int, width: float) -> int:
    """Round `channels * width` to the nearest multiple of 8, but never a tenth below it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class EfficientNetLite(nn.Module):
    """A network of the family, scaled from the table of `STAGES`.

    Any input size from 64 up works. The stochastic depth of the published training, which is for
    hundreds of epochs, is left out. The defaults are those of EfficientNet-Lite0; width and depth
    are factors of channels and blocks, `without` has indices of blocks to leave out.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        depth: float = 1.0,
        dropout: float = 0.2,
        without: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.stem = _layer(3, STEM, 3, stride=2)
        channels = STEM
        blocks = []
        for position, (kernel, stride, expansion, base, repeats) in enumerate(STAGES):
            inner = 0 < position < len(STAGES) - 1
            wide = _widened(base, width)
            for _ in range(math.ceil(repeats * depth) if inner else repeats):
                blocks.append(InvertedResidual(channels, wide, kernel, stride, expansion))
                channels, stride = wide, 1
        if not all(blocks[number].residual for number in without):
            raise ValueError("only blocks with a skip connection can be left out")
        self.blocks = nn.Sequential(
            *(block for number, block in enumerate(blocks) if number not in without)
        )
        self.top = _layer(channels, TOP, 1)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(TOP, classes)
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map `float32 [N,3,H,W]`, RGB, (value - 127) / 128, to logits `float32 [N,K]`."""
        logits: torch.Tensor = self.classifier(self.top(self.blocks(self.stem(pictures))))
        return logits


SHORT = (13, 14)
"""Blocks that `efficientnet_lite0_short` leaves out, the last two of 192 channels: earlier ones
keep what they learnt from ImageNet (`docs/experiments.md`)."""

# Names of layers in the published weights, and here.
_LAYERS = {
    "_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "top.0", "_bn1": "top.1",
    "_fc": "classifier.3",
}  # fmt: skip
_LAYERS_OF_BLOCK = {
    "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1",
}  # fmt: skip


def rename_tensors(
    published: Mapping[str, torch.Tensor], without: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    """Give published weights the names of `EfficientNetLite`; unknown names stay.

    The tensors of the blocks `without` are dropped.
    """
    kept = {}
    for name, tensor in published.items():
        layer, *rest = name.split(".")
        if layer == "_blocks" and rest[0].isdecimal():
            number, layer, *rest = int(rest[0]), *rest[1:]
            if number in without:
                continue
            number -= sum(left < number for left in without)
            layer = f"blocks.{number}.{_LAYERS_OF_BLOCK.get(layer, layer)}"
        kept[".".join([_LAYERS.get(layer, layer), *rest])] = tensor
    return kept
