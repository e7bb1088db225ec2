"""Distillation: the student learns from a teacher's outputs besides the labels.

The loss is that of Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from catdog_edge.errors import ModelError, label_difference
from catdog_edge.spec import Normalization
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.engine.batches.loader import Batch
from catdog_edge.training.engine.device import send
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.evaluation.inference import to_input
from catdog_edge.training.models.batch_norm import fuse_batch_norms
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.models.imagenet_head import ClassGroups, class_groups, without_groups


def check_teacher_file(path: Path) -> None:
    """Raise `ModelError` if a value of `--teacher` is not a checkpoint."""
    if path.suffix.lower() in (".onnx", ".ort"):
        raise ModelError(
            f"--teacher {path}: an exported file cannot be a teacher, expected a .pt; name the "
            "best.pt that it was exported from"
        )
    if path.is_dir():
        best = path / "best.pt"
        inside = f"name {best}" if best.is_file() else "name the best.pt of a trained run"
        raise ModelError(f"--teacher {path} is a folder, expected a .pt; {inside}")
    load_checkpoint(path)


class Teacher:
    """A checkpoint whose outputs the student learns.

    Args:
        path: The checkpoint.
        labels: The student's classes, in its order.
        device: Where the outputs are computed.
        precision: `float32` or `bfloat16`.
        sha256: Digest of the file when the run began; empty: it begins now.
        negatives: Whether the student's last logit is for negatives.

    Raises:
        ModelError: The file is missing, damaged, of another digest, or has other classes.
    """

    def __init__(
        self, path: Path, labels: tuple[str, ...], device: torch.device, precision: str,
        sha256: str = "", negatives: bool = False,
    ) -> None:  # fmt: skip
        network, self.spec = load_checkpoint(path)
        if set(self.spec.labels) != set(labels):
            raise ModelError(
                f"the teacher {path} and the data have different classes "
                f"({label_difference(self.spec.labels, labels)}); name a --teacher of the same "
                "classes"
            )
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 and sha256 != self.sha256:
            raise ModelError(
                f"the teacher {path} is another file than when the run began; put the old one "
                "back, or start again with: catdog-edge train"
            )
        self._network = fuse_batch_norms(network).to(device).to(memory_format=torch.channels_last)
        self._groups = class_groups(self._network)
        self._same_order = self.spec.labels == tuple(labels)
        without_groups(self._network)
        self._order = [self.spec.labels.index(label) for label in labels]
        self._classes = len(labels)
        rejection = self.spec.rejection
        self.knows_negatives = negatives and rejection is not None and rejection.score == "known"
        if self.knows_negatives:
            self._order.append(len(labels))
        self._device, self._precision = device, precision
        self._outputs: dict[tuple[int, int], torch.Tensor] = {}

    def logits(self, pixels: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
        """Compute the teacher's logits of `uint8 [N,H,W,3]`, BGR, of any size.

        Returns:
            `float32 [N,K]`, in the order of the student's classes; `[N,K+1]` where both have a
            logit for negatives, the last.
        """
        outputs = self._compute(pixels, mirrored)
        if self._groups is not None:
            outputs = self._groups(outputs)
        return outputs[:, self._order]

    @torch.no_grad()
    def _compute(self, pixels: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
        images = to_input(pixels.to(self._device), self.spec.normalization)
        if images.shape[-2:] != self.spec.size:
            images = functional.interpolate(
                images, self.spec.size, mode="bilinear", align_corners=False, antialias=True
            ).contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            outputs: torch.Tensor = self._network(images).float()
            if mirrored:
                outputs = (outputs + self._network(images.flip(3)).float()) / 2
        return outputs

    def teaches_categories(self, groups: ClassGroups | None) -> bool:
        """Check whether the student's ImageNet categories learn from those of the teacher."""
        return groups is not None and self._groups is not None and self._same_order

    def targets(self, batch: Batch, recipe: Recipe, view: tuple[int, int]) -> torch.Tensor:
        """Return the teacher's logits of ImageNet's categories, `float32 [N,1000]`.

        Where views (epoch of the view, step) repeat, the teacher sees each once.
        """
        found = self._outputs.get(view)
        if found is None:
            assert self._groups is not None
            found = self._compute(batch.detailed, recipe.distillation_mirrored)
            found = self._groups.as_trained(found)
            if recipe.views:
                self._outputs[view] = found.half()
        return found.float()

    def loss(
        self,
        batch: Batch,
        outputs: torch.Tensor,
        criterion: nn.Module,
        recipe: Recipe,
        view: tuple[int, int],
    ) -> torch.Tensor:
        """Compute the mean loss of a batch against the teacher's logits of the classes.

        The label of a negative is certain, so negatives take the loss of their label. Views are
        those of `targets`. `outputs` are the student's logits, `[N,K]`, with one more column
        where negatives are learned; the result is a scalar.
        """
        temperature = recipe.distillation_temperature
        targets = self._outputs.get(view)
        # Of the labels in the host's memory: to ask the device would be to wait for it.
        positive, negative = (
            send(which.nonzero()[:, 0].numpy(), outputs.device)
            for which in (batch.labels < self._classes, batch.labels >= self._classes)
        )
        labels = batch.labels.to(outputs.device, non_blocking=True)
        detailed = batch.detailed.to(outputs.device)[positive]
        share = len(detailed) / len(labels)
        by_label = criterion(outputs[negative], labels[negative]) * (1 - share) if share < 1 else 0
        outputs = outputs[positive]
        if not self.knows_negatives:
            outputs = outputs[:, : self._classes]
        if targets is None:
            targets = self.logits(detailed, recipe.distillation_mirrored)
            if recipe.views:
                self._outputs[view] = targets
        return by_label + share * distillation_loss(outputs, targets, temperature)


class Reference:
    """A frozen copy of the pretrained network, the target that regularises training."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        groups = class_groups(network)
        if groups is None:
            raise ValueError("expected a network with groups of categories, got one without")
        self._device, self._precision = groups.sizes.device, precision
        frozen = without_groups(fuse_batch_norms(network)).requires_grad_(False)
        self._network = frozen.to(memory_format=torch.channels_last)
        self._group_of = torch.repeat_interleave(groups.sizes)

    def loss(
        self,
        pixels: torch.Tensor,
        categories: torch.Tensor,
        labels: torch.Tensor,
        normalization: Normalization,
    ) -> torch.Tensor:
        """Compute the mean divergence from the frozen outputs within the labelled class.

        Over all categories it would also teach the pretrained network's mistakes; within the class
        of the label it contradicts no label.

        Args:
            pixels: `uint8 [N,H,W,3]`, BGR.
            categories: Logits of the trained network, `float32 [N,1000]`.
            labels: Index of the group of each image, `int64 [N]`.
            normalization: Of the network's input.
        """
        with torch.no_grad(), autocast(self._device, self._precision):
            wanted = self._network(to_input(pixels, normalization)).float()
        outside = self._group_of[None] != labels[:, None]
        return distillation_loss(
            categories.masked_fill(outside, -1e4), wanted.masked_fill(outside, -1e4), 1.0
        )


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Compute the mean Kullback-Leibler divergence of logits `float32 [N,K]`, times T squared.

    The temperature T divides both logits.
    """
    ours, wanted = (functional.log_softmax(one / temperature, dim=1) for one in (student, teacher))
    return functional.kl_div(ours, wanted, reduction="batchmean", log_target=True) * temperature**2
