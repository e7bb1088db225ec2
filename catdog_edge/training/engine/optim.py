"""The optimizer of a recipe: SGD, Adam, AdamW or Muon.

Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The
momentum of a weight matrix is replaced by the nearest semi-orthogonal matrix. The scale
0.2 * sqrt(larger side) gives a step the size of AdamW's (J. Liu et al., "Muon is scalable for LLM
training", 2025), so that one learning rate serves both. `torch.optim.Muon` takes only matrices,
hence this one for convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from catdog_edge.training.config.recipes import Recipe

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan's quintic iteration
ITERATIONS = 4
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.99), 1e-8


def make_optimizer(network: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe; biases and normalisation layers get no weight decay.

    Under Muon the convolutions and hidden layers take orthogonal steps; the last layer, what has
    one dimension, and depthwise convolutions take AdamW's.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    last = next((one for one in reversed(parameters) if one.ndim >= 2), None)
    hidden: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    small: list[nn.Parameter] = []
    for one in parameters:
        depthwise = one.ndim == 4 and one.shape[1] == 1
        kind = small if one.ndim < 2 else plain if depthwise or one is last else hidden
        kind.append(one)
    decays = recipe.weight_decay, recipe.weight_decay, 0.0
    groups: list[dict[str, Any]] = [
        {"params": kind, "weight_decay": decay, "orthogonal": kind is hidden}
        for kind, decay in zip((hidden, plain, small), decays)
        if kind
    ]
    if recipe.optimizer == "muon":
        return Muon(groups, lr=lr, momentum=recipe.momentum)
    for group in groups:
        del group["orthogonal"]
    fused = True if parameters[0].is_cuda else None
    if recipe.optimizer == "sgd":
        momentum = recipe.momentum
        return torch.optim.SGD(groups, lr, momentum, nesterov=momentum > 0, fused=fused)
    form = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return form(groups, lr, fused=fused)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Approximate the nearest semi-orthogonal matrix of `float32 [R,C]` by Newton-Schulz iteration.

    The polynomial acts on singular values alone, so it is built on the small Gram matrix and
    applied once: cheaper than iterating on the wide matrix, with the same result, whose singular
    values are about 0.7 to 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ wide.T
    product: torch.Tensor | None = None
    for _ in range(ITERATIONS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial if product is None else polynomial @ product
        gram = polynomial @ gram @ polynomial
    assert product is not None
    result: torch.Tensor = product @ wide
    return result.T if tall else result


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups with `"orthogonal": True`, AdamW for the others.

    Each group has `params`, `weight_decay` and `orthogonal`; the Nesterov momentum is of the
    orthogonal ones.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients of the parameters."""
        del closure
        for group in self.param_groups:
            step = _muon_step if group["orthogonal"] else _adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update, scale = step(parameter.grad, self.state[parameter], group["momentum"])
                    parameter.add_(update, alpha=-group["lr"] * scale)


def _muon_step(
    gradient: torch.Tensor, state: dict[str, Any], momentum: float
) -> tuple[torch.Tensor, float]:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    state["momentum"].mul_(momentum).add_(gradient)
    update = gradient.add(state["momentum"], alpha=momentum)
    matrix = update.reshape(len(update), -1)
    return orthogonalize(matrix).reshape(update.shape), 0.2 * max(matrix.shape) ** 0.5


def _adam_step(
    gradient: torch.Tensor, state: dict[str, Any], _: float
) -> tuple[torch.Tensor, float]:
    if not state:
        state |= {name: torch.zeros_like(gradient) for name in ("mean", "square")} | {"steps": 0}
    state["steps"] += 1
    first, second = ADAM_BETAS
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].lerp_(gradient.square(), 1 - second)
    mean = state["mean"] / (1 - first ** state["steps"])
    return mean / (state["square"] / (1 - second ** state["steps"])).sqrt().add_(ADAM_EPSILON), 1.0


def align_gradients(network: nn.Module) -> None:
    """Give each gradient its parameter's strides, which the fused optimizers ask for.

    Autograd leaves them different in dimensions of size 1, where they mean nothing: in depthwise
    and 1x1 convolutions in channels-last order.
    """
    for one in network.parameters():
        if one.grad is not None and one.grad.stride() != one.stride():
            pairs = zip(one.shape, one.grad.stride(), one.stride())
            if all(side == 1 or ours == theirs for side, ours, theirs in pairs):
                one.grad = one.grad.as_strided(one.shape, one.stride())
            else:
                one.grad = torch.empty_like(one).copy_(one.grad)
