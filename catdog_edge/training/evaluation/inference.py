"""Inference with PyTorch: the reference that every exported file is checked against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catdog_edge.spec import ModelSpec, Normalization
from catdog_edge.training.evaluation.metrics import softmax


def to_input(pixels: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """Normalise a batch of images.

    Args:
        pixels: `uint8 [N,H,W,3]`, BGR.
        normalization: Of the network.

    Returns:
        `float32 [N,3,H,W]`, RGB, in channels-last memory order.
    """
    images = pixels.permute(0, 3, 1, 2).flip(1).float()
    mean = torch.tensor(normalization.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(normalization.std, device=pixels.device).view(1, 3, 1, 1)
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def logits(
    network: nn.Module,
    normalization: Normalization,
    pixels: npt.NDArray[np.uint8],
    batch: int = 64,
    device: str | torch.device = "cpu",
) -> npt.NDArray[np.float32]:
    """Compute the logits of a network in evaluation mode.

    Args:
        network: Takes normalised `float32 [N,3,H,W]`.
        normalization: Of the network.
        pixels: `uint8 [N,H,W,3]`, BGR.
        batch: Images per call.
        device: Where the network is.

    Returns:
        `float32 [N,K]`; `[N,K+1]` where the network has a logit for negatives, the last.
    """
    was_training = network.training
    network.eval()
    parts = []
    for start in range(0, len(pixels), batch):
        chunk = torch.from_numpy(np.array(pixels[start : start + batch])).to(device)
        parts.append(network(to_input(chunk, normalization)).float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts)


def probabilities(
    network: nn.Module,
    spec: ModelSpec,
    pixels: npt.NDArray[np.uint8],
    batch: int = 64,
    device: str | torch.device = "cpu",
) -> npt.NDArray[np.float32]:
    """Compute calibrated probabilities: `float32 [N,K]` for `uint8 [N,H,W,3]` BGR images."""
    values = logits(network, spec.normalization, pixels, batch, device)
    return softmax(values[:, : len(spec.labels)], spec.temperature)


def known(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute the score of a network with a logit for negatives: that of its classes together.

    Args:
        values: Logits `float32 [N,K+1]`, that of negatives last.

    Returns:
        `float32 [N]`, 0..1: one minus the softmax of the last logit, without temperature.
    """
    return np.asarray(1 - softmax(values)[:, -1], dtype=np.float32)
