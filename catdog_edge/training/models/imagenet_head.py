"""A head that keeps ImageNet's thousand categories and sums them to the classes.

A class is the sum of its ImageNet categories, none of the classes the sum of the rest. The network
then recognises other animals and things from its first step, without one picture of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import list_names
from catdog_edge.training.models.pretrained import imagenet_state
from catdog_edge.training.models.registry import architecture

CATEGORIES = 1000

IMAGENET_GROUPS: dict[str, tuple[range, ...]] = {
    "bear": (range(294, 298),), "bird": (range(7, 25), range(80, 101), range(127, 147)),
    "cat": (range(281, 286),), "dog": (range(151, 269),), "fox": (range(277, 281),),
    "frog": (range(30, 33),), "lizard": (range(38, 49),), "rabbit": (range(330, 333),),
    "snake": (range(52, 69),), "spider": (range(72, 78),), "turtle": (range(33, 38),),
    "wolf": (range(269, 273),),
}  # fmt: skip
"""Indices of the ImageNet categories that a class name stands for."""

_PLURALS = {**{f"{name}s": name for name in IMAGENET_GROUPS}, "foxes": "fox", "wolves": "wolf"}


class ClassGroups(nn.Module):
    """Turn logits of categories into logits of groups: `log(sum(exp(logits)))` of each.

    The softmax over the groups then gives each the sum of its categories' probabilities.

    Args:
        sizes: Number of categories of each group, in the order of the logits.
    """

    sizes: torch.Tensor
    temperature: torch.Tensor  # of the last group, whose logits were divided by it
    scale: torch.Tensor  # multiplies the logits of the groups; see `calibrate_known`
    shift: torch.Tensor  # added to the logit of the last group afterwards

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = list(sizes)
        self.register_buffer("sizes", torch.tensor(self._sizes))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("scale", torch.ones(len(self._sizes)))
        self.register_buffer("shift", torch.zeros(len(self._sizes)))
        self._categories: torch.Tensor | None = None

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Map `float32 [N, sum(sizes)]` to `float32 [N, len(sizes)]`."""
        if self.training:
            self._categories = logits
        # In bfloat16 a sum of hundreds of small terms would lose most of them.
        precise, end, sums = logits.float(), 0, []
        for size in self._sizes:
            # Slices, since ONNX's Split has no form that each version of it reads.
            start, end = end, end + size
            sums.append(torch.logsumexp(precise[:, start:end], dim=1, keepdim=True))
        return torch.cat(sums, dim=1) * self.scale + self.shift

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, *rest: Any
    ) -> None:
        state_dict.setdefault(f"{prefix}temperature", torch.ones(()))  # not in older files
        scale = state_dict.get(f"{prefix}scale")
        if scale is not None:  # one number in older files
            state_dict[f"{prefix}scale"] = scale.expand(len(self._sizes)).clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def take_categories(self) -> torch.Tensor:
        """Return, once, the logits `float32 [N,sum(sizes)]` of the last pass in training mode."""
        if self._categories is None:
            raise ValueError("expected a forward pass in training mode before this call")
        categories, self._categories = self._categories, None
        return categories.float()

    def as_trained(self, logits: torch.Tensor) -> torch.Tensor:
        """Take the temperature out of the logits `float32 [N,sum(sizes)]` of the categories."""
        last = logits.shape[1] - self._sizes[-1]
        return torch.cat([logits[:, :last], logits[:, last:] * self.temperature], dim=1)


def imagenet_groups(labels: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """Return the ImageNet categories of each label, and those of no label last.

    Case and plural do not matter; `None` where `ungrouped_reason` has a reason.

    Examples:
        >>> [len(group) for group in imagenet_groups(("cat", "dog"))]
        [5, 118, 877]
    """
    if ungrouped_reason(labels):
        return None
    names = _group_names(labels)
    groups = [tuple(index for part in IMAGENET_GROUPS[name] for index in part) for name in names]
    taken = {index for group in groups for index in group}
    return (*groups, tuple(index for index in range(CATEGORIES) if index not in taken))


def ungrouped_reason(labels: Sequence[str]) -> str:
    """Say why labels cannot be made of ImageNet's categories; empty where they can."""
    names = _group_names(labels)
    missing = [
        label for label, name in zip(labels, names, strict=True) if name not in IMAGENET_GROUPS
    ]
    if missing:
        return (
            f"no group of ImageNet categories is known for {list_names(missing)}; known are "
            f"{', '.join(IMAGENET_GROUPS)}"
        )
    if len(set(names)) < len(names):
        return f"two of {list_names(labels)} are the same group of ImageNet categories"
    return ""


def _group_names(labels: Sequence[str]) -> list[str]:
    return [_PLURALS.get(name, name) for name in map(str.casefold, labels)]


def head_linear(network: nn.Module) -> nn.Linear | None:
    """Return the linear layer of `network.classifier`, `None` for a network of another form."""
    classifier = getattr(network, "classifier", None)
    layers = list(classifier) if isinstance(classifier, nn.Sequential) else []
    last = [layer for layer in layers if not isinstance(layer, ClassGroups)][-1:]
    return last[0] if last and isinstance(last[0], nn.Linear) else None


def class_groups(network: nn.Module) -> ClassGroups | None:
    """Return the network's groups, `None` where its head has one logit per class."""
    return next((part for part in network.modules() if isinstance(part, ClassGroups)), None)


def without_groups(network: nn.Module) -> nn.Module:
    """Make a network return the logits of its categories; modifies it in place."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, ClassGroups):
                setattr(module, name, nn.Identity())
    return network


def build_grouped(arch: str, sizes: Sequence[int]) -> nn.Module:
    """Build an architecture with random weights and `sum(sizes)` categories in groups."""
    network = architecture(arch).build(sum(sizes))
    if head_linear(network) is None:
        raise ValueError(f"expected a network whose classifier ends in a linear layer, got {arch}")
    assert isinstance(network.classifier, nn.Sequential)
    network.classifier.append(ClassGroups(sizes))
    return network


def pretrained_grouped(arch: str, labels: Sequence[str]) -> tuple[nn.Module, str] | None:
    """Build an architecture with ImageNet weights, head included, its categories in groups.

    Returns:
        The network and a line that names the source of its weights; `None` where
        `ungrouped_reason` has a reason, or the architecture's head has another form.

    Raises:
        ModelError, MissingPackageError: See `load_pretrained`.
    """
    groups = imagenet_groups(labels)
    if groups is None or head_linear(architecture(arch).build(2)) is None:
        return None
    state, source = imagenet_state(arch)
    network = build_grouped(arch, [len(group) for group in groups])
    linear = head_linear(network)
    order = torch.tensor([index for group in groups for index in group])
    [place] = [name for name, module in network.named_modules() if module is linear]
    for name in (f"{place}.weight", f"{place}.bias"):
        state[name] = state[name][order]
    own = network.state_dict()
    network.load_state_dict({**own, **{name: state[name] for name in own if name in state}})
    return network, source


def group_sizes(state_dict: dict[str, torch.Tensor]) -> list[int] | None:
    """Return the sizes of the groups in a network's weights, `None` where it has none."""
    for name, value in state_dict.items():
        if name.startswith("classifier.") and name.endswith(".sizes"):
            return [int(size) for size in value]
    return None


@torch.no_grad()
def set_group_temperature(network: nn.Module, temperature: float) -> None:
    """Make the logit of the last group `T * log(sum(exp(logits / T)))`, by its linear layer.

    At 1 it is the logarithm of the sum of probabilities, towards 0 the largest logit: below 1 the
    many categories of no class that an image does not show add up to less. The classes keep their
    sums: with five categories of cats and 118 of dogs they would be weighted anew against one
    another. A network is changed in place; one without groups stays as it is.
    """
    groups, linear = class_groups(network), head_linear(network)
    if groups is None or linear is None:
        return
    factor = temperature / float(groups.temperature)
    last = linear.out_features - int(groups.sizes[-1])
    linear.weight[last:].div_(factor)
    linear.bias[last:].div_(factor)
    groups.scale[-1] *= factor
    groups.temperature.fill_(temperature)


@torch.no_grad()
def calibrate_known(network: nn.Module, scale: float, shift: float) -> None:
    """Multiply the logits by `scale`, then add `shift` to the last, that of no class.

    The order of the classes is unchanged; their temperature has to be fitted again. Without groups
    the last linear layer is changed, and those of as many outputs, of which some networks take the
    mean. In a network with another head the logits become others than these, or stay as they are.
    """
    groups = class_groups(network)
    if groups is not None:
        groups.scale.mul_(scale)
        groups.shift.mul_(scale)
        groups.shift[-1] += shift
        return
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.out_features == layers[-1].out_features and layer.bias is not None:
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
            layer.bias[-1] += shift
