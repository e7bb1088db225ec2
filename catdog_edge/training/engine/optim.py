"""The optimizer of a recipe: SGD, Adam, AdamW or Muon.

Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The
momentum of a weight matrix is replaced by the nearest semi-orthogonal matrix. The scale
0.2 * sqrt(larger side) gives a step the size of AdamW's (J. Liu et al., "Muon is scalable for LLM
training", 2025), so that one learning rate serves both. `torch.optim.Muon` takes only matrices,
hence this one for convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def orthogonalize(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Approximate the nearest semi-orthogonal matrices of `float32 [R,C]` by Newton-Schulz.

    The polynomial acts on singular values alone, so it is built on the small Gram matrix and
    applied once: cheaper than iterating on the wide matrix, with the same result, whose singular
    values are about 0.7 to 1.2. A GPU iterates Gram matrices of one size together.
    """
    wide = [one.T if one.shape[0] > one.shape[1] else one for one in matrices]
    norms = torch._foreach_norm(wide)
    torch._foreach_add_(norms, 1e-7)
    wide = [one / norm for one, norm in zip(wide, norms)]
    sizes: dict[int, list[int]] = {}
    for number, one in enumerate(wide):
        sizes.setdefault(len(one), []).append(number)
    results = list(wide)
    for numbers in sizes.values():
        grams = [wide[number] @ wide[number].T for number in numbers]
        # The CPU's threads share a matrix better than a batch.
        products = _iterate(torch.stack(grams)) if grams[0].is_cuda else map(_iterate, grams)
        for number, product in zip(numbers, products):
            result = product @ wide[number]
            results[number] = result.T if result.shape != matrices[number].shape else result
    return results


def _iterate(gram: torch.Tensor) -> torch.Tensor:
    """Return the product of all polynomials of Gram matrices `[R,R]` or `[N,R,R]`."""
    a, b, c = NEWTON_SCHULZ
    add_product = torch.addmm if gram.ndim == 2 else torch.baddbmm
    product: torch.Tensor | None = None
    for left in reversed(range(ITERATIONS)):
        polynomial = add_product(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if left:
            gram = polynomial @ gram @ polynomial
    assert product is not None
    return product


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups with `"orthogonal": True`, AdamW for the others.

    Each group has `params`, `weight_decay` and `orthogonal`; the Nesterov momentum is of the
    orthogonal ones. Operations on lists are one kernel for many tensors on a GPU.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients of the parameters."""
        del closure
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            if parameters:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                (_muon_step if group["orthogonal"] else _adam_step)(
                    parameters, [self.state[one] for one in parameters], group
                )


def _muon_step(
    parameters: list[torch.Tensor], states: list[dict[str, Any]], group: dict[str, Any]
) -> None:
    gradients = _gradients(parameters, states, ("momentum",))
    momenta = [state["momentum"] for state in states]
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_add_(momenta, gradients)
    updates = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
    matrices = [one.reshape(len(one), -1) for one in updates]
    for parameter, update in zip(parameters, orthogonalize(matrices)):
        scale = 0.2 * max(update.shape) ** 0.5
        parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


def _adam_step(
    parameters: list[torch.Tensor], states: list[dict[str, Any]], group: dict[str, Any]
) -> None:
    gradients = _gradients(parameters, states, ("mean", "square"))
    for state in states:
        state["steps"] = state.get("steps", 0) + 1
    means, squares = ([state[name] for state in states] for name in ("mean", "square"))
    first, second = ADAM_BETAS
    torch._foreach_lerp_(means, gradients, 1 - first)
    torch._foreach_lerp_(squares, torch._foreach_pow(gradients, 2), 1 - second)
    updates = torch._foreach_div(means, [1 - first ** state["steps"] for state in states])
    roots = torch._foreach_div(squares, [1 - second ** state["steps"] for state in states])
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, ADAM_EPSILON)
    torch._foreach_div_(updates, roots)
    torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _gradients(
    parameters: list[torch.Tensor], states: list[dict[str, Any]], names: tuple[str, ...]
) -> list[torch.Tensor]:
    """Return the gradients; a state that is new gets zeros by each name."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    for state, gradient in zip(states, gradients):
        if not state:
            state |= {name: torch.zeros_like(gradient) for name in names}
    return gradients


def align_gradients(network: nn.Module) -> None:
    """Give each gradient its parameter's strides, which the fused optimizers require.

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
