"""Small networks and pictures for the exporters' tests: quick to build, hard to fool."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catdog_edge.spec import ModelSpec, Normalization, squash
from catdog_edge.training.evaluation.inference import logits, to_input
from catdog_edge.training.models.registry import CENTRED, architecture
from exporters.checks.acceptance import Strictness, Verification, judge
from exporters.checks.predictors import OnnxPredictor
from exporters.formats.torch_export import export_onnx

SIZE = 32
LABELS = ("bright", "dark", "striped")


class TinyNet(nn.Module):
    """Padding, batch norm, a residual, a pool: what the real architectures are made of."""

    def __init__(self, classes: int = 3, padding: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=padding)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 16, 3, padding=1)
        self.last_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(pictures)))
        x = torch.relu(x + self.second(x))
        x = nn.functional.max_pool2d(torch.relu(self.last_norm(self.third(x))), 2)
        return self.head(x.mean((2, 3)))


def unsettle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms figures as after training, so that fusing them wrongly would show."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape
            module.running_mean.copy_(torch.rand(size, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(size, generator=generator) + 0.5)
            module.bias.data.copy_(torch.rand(size, generator=generator) - 0.5)
    return network.eval()


def settle(network: nn.Module, spec: ModelSpec, frames: npt.NDArray[np.uint8]) -> nn.Module:
    """Let batch norms see some pictures, so that signals neither vanish nor explode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean
    network.train()
    with torch.no_grad():
        network(to_input(torch.from_numpy(frames), spec.normalization))
    return network.eval()


def pictures(count: int, size: int = SIZE, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Bright, dark and striped noise in turn: `uint8 [count,size,size,3]`, BGR."""
    rng = np.random.default_rng(seed)
    stripes = 70.0 * np.sign(np.sin(np.arange(size) * 1.1))
    made = []
    for number in range(count):
        level = (175, 80, 127)[number % 3] + rng.normal(0, 8)
        tint = rng.normal(0, 15, 3)
        picture = rng.normal(level, 25, (size, size, 3)) + tint
        if number % 3 == 2:
            picture += stripes[:, None, None]
        made.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(made)


def truth(count: int) -> npt.NDArray[np.int64]:
    """The classes of `pictures(count)`."""
    return np.arange(count) % 3


def spec_for(
    normalization: Normalization = CENTRED,
    labels: tuple[str, ...] = LABELS,
    size: int = SIZE,
    name: str = "tiny",
    temperature: float = 1.25,
) -> ModelSpec:
    return ModelSpec(
        architecture=name,
        labels=labels,
        height=size,
        width=size,
        resize=squash(size, size),
        normalization=normalization,
        temperature=temperature,
    )


def fit_head(
    network: nn.Module,
    head: nn.Linear,
    spec: ModelSpec,
    frames: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> nn.Module:
    """Train the last layer alone, by ridge regression: sure answers without a training run."""
    held: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda module, inputs, output: held.append(inputs[0]))
    logits(network, spec.normalization, frames)
    hook.remove()
    features = torch.cat(held).double()
    mean, spread = features.mean(0), features.std(0) + 1e-6
    scaled = torch.cat([(features - mean) / spread, torch.ones(len(features), 1)], 1)
    wanted = 8.0 * nn.functional.one_hot(torch.from_numpy(labels), len(spec.labels)).double() - 4
    ridge = scaled.T @ scaled + 20.0 * torch.eye(scaled.shape[1])
    solved = torch.linalg.solve(ridge, scaled.T @ wanted)
    weight = (solved[:-1] / spread[:, None]).T
    head.weight.data = weight.float()
    head.bias.data = (solved[-1] - weight @ mean).float()
    return network.eval()


def trained(seed: int = 0, normalization: Normalization = CENTRED) -> tuple[TinyNet, ModelSpec]:
    """A tiny network that tells the three kinds of `pictures` apart."""
    torch.manual_seed(seed)
    network, spec = TinyNet(), spec_for(normalization)
    settle(network, spec, pictures(90, seed=7))
    fit_head(network, network.head, spec, pictures(90, seed=7), truth(90))
    return network, spec


class Fragile(nn.Module):
    """A network that int8 ruins: one channel is 1,000 times larger, and the next layer ignores it.

    The second convolution ignores that channel, but the one scale of the tensor between
    the first two is set by it, so that all that matters falls into a step or two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(
                loud=nn.Conv2d(3, 8, 3, padding=1),
                relu1=nn.ReLU(),
                deaf=nn.Conv2d(8, 8, 3, padding=1),
                relu2=nn.ReLU(),
                third=nn.Conv2d(8, 16, 3, stride=2, padding=1),
                norm3=nn.BatchNorm2d(16),
                relu3=nn.ReLU(),
                fourth=nn.Conv2d(16, 16, 3, stride=2, padding=1),
                norm4=nn.BatchNorm2d(16),
                relu4=nn.ReLU(),
            )
        )
        self.head = nn.Linear(16, 3)
        self.layers.loud.weight.data[0] = self.layers.loud.weight.data[0].abs() * 3000
        self.layers.loud.bias.data[0] = 5000.0
        self.layers.deaf.weight.data[:, 0] = 0.0

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(pictures).mean((2, 3)))


def fragile() -> tuple[Fragile, ModelSpec]:
    """A `Fragile` network that tells `pictures` apart in float32."""
    torch.manual_seed(3)
    network, spec = Fragile(), spec_for()
    settle(network, spec, pictures(90, seed=7))
    fit_head(network, network.head, spec, pictures(90, seed=7), truth(90))
    return network, spec


def answers(
    path: Path, frames: npt.NDArray[np.uint8], batch: int | None = None
) -> npt.NDArray[np.float32]:
    """Probabilities of an exported file, `float32 [N,K]`."""
    return OnnxPredictor(path).predict(frames, batch).probabilities


FRAMES, TRUTH = pictures(48), truth(48)


def compared(reference: Path, candidate: Path) -> Verification:
    """The verdict on an int8 file by `FRAMES`, by the point estimates."""
    both = (OnnxPredictor(path).predict(FRAMES) for path in (reference, candidate))
    spec = spec_for().replace(precision="int8-static")
    return judge(*both, TRUTH, spec, Strictness(strict=True))


def named_export(name: str, folder: Path) -> Path:
    """An fp32 file of an architecture with random weights."""
    arch = architecture(name)
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, LABELS, arch.size, name)
    network = settle(arch.build(3), spec, pictures(6, arch.size))
    return export_onnx(network, spec, folder / f"{name}.onnx").path


def gradients_of(function, *inputs):
    """The result of a function, and the gradients of its inputs."""
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    result = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    towards = torch.randn(result.shape, generator=generator).to(result.dtype)
    result.backward(towards)
    return result.detach(), [leaf.grad for leaf in leaves]
