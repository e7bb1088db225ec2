"""The recipe's optimiser, and the moving average of the weights.

Knows nothing of data, precision or files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.engine.muon import Muon


def make_optimizer(network: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases and normalisation layers get no weight decay.

    Under Muon the convolutions and hidden layers take orthogonal steps; the last layer, what
    has one dimension, and depthwise convolutions (nothing to orthogonalise) take AdamW's.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    last = [parameter for parameter in parameters if parameter.ndim >= 2][-1:]
    hidden, plain, small = [], [], []
    for parameter in parameters:
        depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
        if parameter.ndim < 2:
            small.append(parameter)
        elif depthwise or any(parameter is one for one in last):
            plain.append(parameter)
        else:
            hidden.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": hidden, "weight_decay": recipe.weight_decay, "orthogonal": True},
        {"params": plain, "weight_decay": recipe.weight_decay, "orthogonal": False},
        {"params": small, "weight_decay": 0.0, "orthogonal": False},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "muon":
        return Muon(groups, lr=lr, momentum=recipe.momentum)
    for group in groups:
        del group["orthogonal"]
    if recipe.optimizer == "sgd":
        momentum = recipe.momentum
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.Adam(groups, lr=lr)


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average of the weights one step, batch-norm figures included."""
    current = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])
