"""The architectures, by name.

Every network takes `float32 [N,3,H,W]`, RGB, normalised by its `Normalization`, and returns
logits `float32 [N,K]`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import ModelError
from catdog_edge.spec import Normalization
from catdog_edge.system.packages import import_extra
from catdog_edge.training.models.efficientnet_lite import SHORT, EfficientNetLite

UNIT_RANGE = Normalization(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))  # RGB in 0..1

CENTRED = Normalization(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
"""All channels alike, about -1..1. The mean is a grey level, so a uint8 pad of 127 is exactly
the zero pad of a convolution and scaling folds into the first convolution exactly."""

# ImageNet's mean and deviation, of torchvision's networks.
IMAGENET = Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry."""

    name: str  # value of `--arch`
    build: Callable[[int], nn.Module]  # number of classes -> a network with random weights
    size: int  # height and width of the input in pixels
    normalization: Normalization  # of the input
    summary: str  # one line for `catdog-edge info --arch`
    recipe: str = "default"  # name of the default recipe
    fixed_size: bool = False  # whether the linear layers fit no other size


_KNOWN = (
    (3, 64, 1, 0), (64, 64, 1, 1), (64, 64, 0, 1), (64, 32, 1, 1), (32, 32, 1, 1), (32, 32, 1, 1),
)  # fmt: skip
"""Channels of each convolution of `SimpleCNN`; whether a ReLU and a pool follow."""


class SimpleCNN(nn.Module):
    """A simple network: six 3x3 convolutions without padding, two 512-wide linear layers.

    785,376 parameters before the head, 2.36 G multiply-adds at 224x224. In-place ReLUs make a
    training step 9 % faster on these large maps.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, relu, pool in _KNOWN:
            layers.append(nn.Conv2d(inputs, outputs, 3))
            layers += [nn.ReLU(inplace=True)] * relu + [nn.MaxPool2d(2)] * pool
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(800, 512), nn.ReLU(inplace=True),
            nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, classes),
        )  # fmt: skip

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map `float32 [N,3,224,224]`, RGB 0..1, to logits `float32 [N,K]`."""
        maps = self.features(pictures)
        if maps.shape[-2:] != (5, 5):
            # A recipe may train on smaller pictures first.
            maps = nn.functional.interpolate(maps, (5, 5), mode="bilinear", align_corners=False)
        logits: torch.Tensor = self.classifier(maps)
        return logits


def _convolution(inputs: int, outputs: int, stride: int = 1, gain: float = 1.0) -> nn.Sequential:
    """Create a 3x3 convolution and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(convolution, norm)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity; ONNX Runtime fuses the addition and the ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        # Without gain the block starts as the identity: high learning rates work at once.
        self.second = _convolution(channels, channels, gain=0.0)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[N,C,H,W]` to the same shape."""
        return torch.relu(maps + self.second(torch.relu(self.first(maps))))


class EdgeCNN(nn.Module):
    """The default from random weights: 3x3 convolutions, batch norm, ReLU, residual blocks.

    Five convolutions of stride 2 take 128x128 down to 4x4: dense convolutions on small maps are
    what oneDNN (training in bfloat16) and ONNX Runtime (float32 and int8) do fastest. Any input
    size from 32 up works.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [_convolution(3, channels, stride=2), nn.ReLU()]
        for width, blocks in ((48, 1), (80, 1), (128, 2), (192, 0)):
            layers += [_convolution(channels, width, stride=2), nn.ReLU()]
            layers += [ResidualBlock(width) for _ in range(blocks)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map `float32 [N,3,H,W]`, RGB, `CENTRED`, to logits `float32 [N,K]`."""
        logits: torch.Tensor = self.classifier(self.features(pictures))
        return logits


def _vision(classes: int, name: str) -> nn.Module:
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, num_classes=classes)
    return network


TORCHVISION = ("mobilenet_v3_small", "resnet18", "efficientnet_b0")  # names of torchvision
LITE = "EfficientNet-Lite, made for small devices and int8; ImageNet weights in [pretrained]"

# The default architectures for random and for ImageNet weights.
DEFAULT, DEFAULT_PRETRAINED = "edge_cnn", "efficientnet_lite0_short"

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry
    for entry in (
        Architecture(
            DEFAULT, EdgeCNN, 128, CENTRED, "from random weights: quick to train and on a device"
        ),
        Architecture(
            "simple_cnn", SimpleCNN, 224, UNIT_RANGE, "six plain 3x3 convolutions; the baseline",
            recipe="classic",  # without batch norms it diverges at the default learning rate
            fixed_size=True,
        ),
        *(
            Architecture(one, partial(_vision, name=one), 224, IMAGENET, f"torchvision's {one}")
            for one in TORCHVISION
        ),
        Architecture("efficientnet_lite0", EfficientNetLite, 224, CENTRED, LITE),
        Architecture(
            DEFAULT_PRETRAINED, partial(EfficientNetLite, without=SHORT), 192, CENTRED,
            "the same without two late blocks: less time per frame",
        ),
        Architecture(
            "efficientnet_lite2", partial(EfficientNetLite, width=1.1, depth=1.2, dropout=0.3),
            260, CENTRED, "the same, wider and deeper: fewer errors",
        ),
    )
}  # fmt: skip


TIMM = "timm:"  # before the name of a network of timm (PyTorch Image Models) in `--arch`


def architecture(name: str) -> Architecture:
    """Look up an architecture by its name, or `timm:NAME`.

    Raises:
        ModelError: There is none of this name.
        MissingPackageError: timm is not installed.

    Examples:
        >>> network = architecture("edge_cnn").build(2)
    """
    if name.startswith(TIMM):
        return _of_timm(name)
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"there is no architecture {name!r}; choose one of: {known}")
    return ARCHITECTURES[name]


def import_timm(name: str) -> Any:
    """Import timm for one of its networks; raises `MissingPackageError`, `ModelError`."""
    timm = import_extra("timm", "timm", f"{name} needs the package timm")
    model = name.removeprefix(TIMM)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), 5)
        remedy = f"similar names: {', '.join(near)}" if near else "timm.list_models() lists them"
        raise ModelError(f"timm {timm.__version__} has no network {model!r}; {remedy}")
    return timm


def _of_timm(name: str) -> Architecture:
    """Make the entry of a timm network, with size, mean and deviation of its weights."""
    timm, model = import_timm(name), name.removeprefix(TIMM)
    known = timm.get_pretrained_cfg(model)
    mean, std = (tuple(255 * value for value in values) for values in (known.mean, known.std))
    return Architecture(
        name,
        lambda classes: timm.create_model(model, num_classes=classes),
        known.input_size[-1],
        Normalization(mean, std),
        f"timm's {model}",
        fixed_size=bool(known.fixed_input_size),
    )
