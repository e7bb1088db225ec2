"""Inference with PyTorch, the reference for every exported file, or with an exported file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from catdog_edge.errors import DataError, ModelError, label_difference
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.spec import ModelSpec, Normalization
from catdog_edge.system.console import progress_bar, track
from catdog_edge.training.array_types import Float32, Pixels
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.models.checkpoint import load_checkpoint

BATCH = 64  # images per call of a network
CUDA_BATCH = 128
Device = str | torch.device


def to_input(pixels: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """Normalise `uint8 [N,H,W,3]`, BGR, to `float32 [N,3,H,W]`, RGB, in channels-last memory."""
    images = pixels.permute(0, 3, 1, 2).flip(1).float()
    mean, std = _constants(normalization, pixels.device)
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


@cache  # to copy them to a GPU is to wait for it
def _constants(normalization: Normalization, device: torch.device) -> list[torch.Tensor]:
    return [
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (normalization.mean, normalization.std)
    ]


@torch.inference_mode()
def logits(
    network: nn.Module,
    normalization: Normalization,
    pixels: Pixels | torch.Tensor,
    device: Device = "cpu",
    bar: str = "",
) -> Float32:
    """Compute logits in evaluation mode, batch by batch, without gradients.

    Args:
        network: Its mode, training or evaluation, is restored afterwards.
        normalization: Mean and deviation of its input.
        pixels: `uint8 [N,H,W,3]`, BGR. A tensor must be on the device; an array may be
            memory-mapped.
        device: Where the network is.
        bar: Name of a progress bar; empty: none is shown.

    Returns:
        `float32 [N,K]`; `[N,K+1]` where the network has a logit for negatives, the last.
    """
    was_training = network.training
    network.eval()
    parts = []
    batch = CUDA_BATCH if torch.device(device).type == "cuda" else BATCH
    count = progress_bar(bar, len(pixels))
    for start in range(0, len(pixels), batch):
        chunk = pixels[start : start + batch]
        if not isinstance(chunk, torch.Tensor):
            chunk = torch.from_numpy(np.array(chunk)).to(device)
        parts.append(network(to_input(chunk, normalization)).float())
        count(min(start + batch, len(pixels)))
    network.train(was_training)
    return np.asarray(torch.cat(parts).cpu().numpy())


def probabilities(
    network: nn.Module, spec: ModelSpec, pixels: Pixels, device: Device = "cpu", bar: str = ""
) -> Float32:
    """Compute calibrated probabilities `float32 [N,K]` of images `uint8 [N,H,W,3]`, BGR.

    See `logits` for the other arguments.
    """
    values = logits(network, spec.normalization, pixels, device, bar)
    return softmax(values[:, : len(spec.labels)], spec.temperature)


def known(values: Float32) -> Float32:
    """Compute the score `known`, `float32 [N]`, 0..1, from logits `float32 [N,K+1]`.

    It is one minus the softmax, without temperature, of the last logit, that of negatives.
    """
    return np.asarray(1 - softmax(values)[:, -1], dtype=np.float32)


class EvaluatedModel:
    """A checkpoint (`.pt`) or an exported file (`.onnx`, `.ort`), evaluated on the CPU.

    Raises:
        ModelError: The file is missing, damaged, or of another kind.

    Examples:
        >>> model = EvaluatedModel(Path("runs/mine/best.pt"))
        >>> images, labels, _ = pixels(dataset, "test", model.spec.resize)
        >>> accuracy = (model.probabilities(images).argmax(axis=1) == labels).mean()
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelError(f"there is no file {path}; name a .pt or an .onnx with --weights")
        self._classifier: Classifier | None = None
        if path.suffix in (".onnx", ".ort"):
            self._classifier = Classifier(path, provider="cpu")
            self.spec = self._classifier.spec
        else:
            self._network, self.spec = load_checkpoint(path)

    def probabilities(self, pixels: Pixels) -> Float32:
        """Compute calibrated probabilities `float32 [N,K]` of images `uint8 [N,H,W,3]`, BGR.

        The images are of the model's size. An exported file gets one at a time, as in a camera
        loop: outputs of dynamically quantized layers depend slightly on the rest of a batch.
        """
        if self._classifier is None:
            return probabilities(self._network, self.spec, pixels, bar="images")
        each = (self._classifier.probabilities([image]) for image in track(pixels, "images"))
        return np.concatenate([*each])

    def scores(self, pixels: Pixels) -> Float32:
        """Compute the score of `spec.rejection`, `float32 [N]`, 0..1, high where a class is seen.

        It is the highest probability for a model without rejection.
        """
        if self._classifier is not None:
            each = (self._classifier.scores([image]) for image in track(pixels, "images"))
            return np.concatenate([*each])
        rejection = self.spec.rejection
        if rejection is None or rejection.score == "max_probability":
            return np.asarray(self.probabilities(pixels).max(axis=1))
        return known(logits(self._network, self.spec.normalization, pixels, bar="images"))


def check_labels(spec: ModelSpec, labels: tuple[str, ...], weights: Path, source: str) -> None:
    """Raise `DataError` where data has other classes than the model, or in another order."""
    if spec.labels != labels:
        raise DataError(
            f"{weights} and {source} have different classes "
            f"({label_difference(spec.labels, labels)}); name data with the model's classes with "
            "--data"
        )
