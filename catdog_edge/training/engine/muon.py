"""Muon: momentum whose every step is made orthogonal, for the weights of convolutions.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. An update is
replaced by the nearest semi-orthogonal matrix, so that all directions learn alike; the others
(biases, norms, the last layer) take AdamW. The scale 0.2 * sqrt(larger side) gives a step the
size of AdamW's (J. Liu et al., "Muon is scalable for LLM training", 2025), so that one learning
rate serves both. `torch.optim.Muon` takes matrices alone, hence this one for convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives singular values towards one, from Jordan's text."""

ITERATIONS = 4

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.99), 1e-8


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The semi-orthogonal matrix near `matrix`, by Newton-Schulz iteration.

    The polynomial acts on singular values alone, so it is built up on the small Gram matrix
    and applied once: cheaper than iterating on the wide matrix itself, and the same result.

    Args:
        matrix: `float32 [R,C]`.

    Returns:
        `float32 [R,C]`, singular values near one (0.7 to 1.2 is what the iteration gives).
    """
    a, b, c = COEFFICIENTS
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
    """Muon for groups with `"orthogonal": True`, AdamW for the others.

    Args:
        groups: Parameter groups, each with `params`, `weight_decay` and `orthogonal`.
        lr: Learning rate of both.
        momentum: Of the orthogonal groups, in Nesterov's form.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients that the parameters hold."""
        del closure
        for group in self.param_groups:
            move = self._orthogonal_step if group["orthogonal"] else self._adam_step
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                move(parameter, parameter.grad, group)

    def _orthogonal_step(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(state["momentum"], alpha=group["momentum"])
        matrix = update.reshape(len(update), -1)
        scale = 0.2 * max(matrix.shape) ** 0.5
        parameter.add_(orthogonalized(matrix).reshape(update.shape), alpha=-group["lr"] * scale)

    def _adam_step(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
            state["steps"] = 0
        state["steps"] += 1
        first, second = ADAM_BETAS
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["steps"])
        square = state["square"] / (1 - second ** state["steps"])
        parameter.add_(mean / square.sqrt().add_(ADAM_EPSILON), alpha=-group["lr"])
