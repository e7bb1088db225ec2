"""Which precision a training step runs in: float32, or bfloat16 where that is faster.

Knows nothing of data or recipes.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.inference import to_input
from catdog_edge.training.models.batch_norm import freeze_batch_norms

Pixels = npt.NDArray[np.uint8]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs at `float32` or `bfloat16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def trial_batch(size: int) -> int:
    """Pictures of `size` x `size` for `choose_precision`: enough to be typical, done in seconds."""
    return max(8, 64 * 128 * 128 // (size * size))


def choose_precision(
    network: nn.Module, spec: ModelSpec, pixels: Pixels, device: str, frozen: bool = False
) -> tuple[str, float]:
    """Time a few training steps in float32 and in bfloat16, in turns, and name the faster.

    bfloat16 pays on processors with matrix units and costs time elsewhere, also from one
    network to the next; nothing short of trying tells.

    Args:
        network: Left as it is: a copy is trained.
        spec: Describes the network.
        pixels: `uint8 [N,H,W,3]`: a small batch to try with.
        device: Where to train.
        frozen: Batch norms keep the statistics that they have.

    Returns:
        `float32` or `bfloat16` (only where it is at least 10 % faster), and how many times
        faster bfloat16 was.
    """
    place = torch.device(device)
    trial = copy.deepcopy(network).to(place).to(memory_format=torch.channels_last).train()
    if frozen:
        freeze_batch_norms(trial)
    inputs = to_input(torch.from_numpy(np.array(pixels)).to(place), spec.normalization)
    spent: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for attempt in range(5):
        for precision, times in spent.items():
            started = time.perf_counter()
            with autocast(place, precision):
                outputs = trial(inputs)
            outputs.float().square().mean().backward()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            if attempt:  # the first is warm-up
                times.append(time.perf_counter() - started)
            trial.zero_grad(set_to_none=True)
    gain = float(np.median(spent["float32"]) / np.median(spent["bfloat16"]))
    return ("bfloat16" if gain > 1.1 else "float32"), gain
