"""The exponential moving average (EMA) of the weights, which is validated and kept."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Update an exponential moving average of the weights and the batch-norm statistics.

    This is the update alone: `AveragedModel` of torch wraps the network, which changes the names of
    its weights in checkpoints, and copies the weights at its first update.
    """
    current = network.state_dict()
    pairs = [(value, current[name]) for name, value in averaged.state_dict().items()]
    values, others = zip(*((v, o) for v, o in pairs if v.is_floating_point()))
    torch._foreach_lerp_(values, others, 1 - decay)  # one kernel for many on a GPU
    counts = [(v, o) for v, o in pairs if not v.is_floating_point()]  # of batch norms
    if counts:
        values, others = zip(*counts)
        torch._foreach_copy_(values, others)
