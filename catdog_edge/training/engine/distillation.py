"""Distillation: a trained network whose answers the student learns from, beside the labels.

The loss is Hinton's (Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network,
2015): the divergence between both answers at a raised temperature, times its square. Knows
nothing of optimisers or data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch.nn import functional

from catdog_edge.errors import ModelError
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.evaluation.inference import to_input
from catdog_edge.training.models.batch_norm import fuse_batch_norms
from catdog_edge.training.models.checkpoint import load_checkpoint


def check_teacher_file(path: Path | None) -> None:
    """Refuse what `--teacher` cannot be before any picture is read.

    Raises:
        ModelError: It is an exported file or a folder, there is no such file, or it is no
            checkpoint.
    """
    if path is None:
        return
    if path.suffix.lower() in (".onnx", ".ort"):
        raise ModelError(
            f"--teacher {path}: an exported file cannot teach, a .pt is wanted; name the best.pt "
            "that it was exported from"
        )
    if path.is_dir():
        best = path / "best.pt"
        inside = f"name {best}" if best.is_file() else "name the best.pt of a trained run"
        raise ModelError(f"--teacher {path} is a folder, a .pt is wanted; {inside}")
    load_checkpoint(path)


class Teacher:
    """A checkpoint that answers the student's pictures.

    Args:
        path: Its `.pt` file.
        labels: The student's classes, in its order.
        device: Where to compute.
        precision: `float32` or `bfloat16`.
        digest: What `digest` was when the run began; empty: this is the beginning.
        others: The student has a logit for none of the classes, the last.

    Raises:
        ModelError: The file is missing, damaged or another one than at the beginning, or
            knows other classes.
    """

    def __init__(
        self,
        path: Path,
        labels: tuple[str, ...],
        device: torch.device,
        precision: str,
        digest: str = "",
        others: bool = False,
    ) -> None:
        network, self.spec = load_checkpoint(path)
        if set(self.spec.labels) != set(labels):
            raise ModelError(
                f"the teacher {path} tells {', '.join(self.spec.labels)} apart, the data has "
                f"{', '.join(labels)}; name a --teacher that was trained on the same classes"
            )
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest and digest != self.digest:
            raise ModelError(
                f"the teacher {path} is another file than when the run began; put the old one "
                "back, or start again with: catdog-edge train"
            )
        self._network = fuse_batch_norms(network).to(device).to(memory_format=torch.channels_last)
        self._order = [self.spec.labels.index(label) for label in labels]
        rejection = self.spec.rejection
        self.knows_others = others and rejection is not None and rejection.score == "known"
        if self.knows_others:
            self._order.append(len(labels))
        self._device, self._precision = device, precision

    @torch.no_grad()
    def logits(self, pixels: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
        """The teacher's opinion.

        Args:
            pixels: `uint8 [N,H,W,3]`, BGR, on any device: the student's pictures, resized
                here where the teacher's input has another size.
            mirrored: Average over each picture and its mirror image.

        Returns:
            `float32 [N,K]`, in the order of the student's classes; `[N,K+1]` where both know
            pictures of none of them, that logit last.
        """
        pictures = to_input(pixels.to(self._device), self.spec.normalization)
        size = (self.spec.height, self.spec.width)
        if pictures.shape[-2:] != size:
            pictures = functional.interpolate(
                pictures, size, mode="bilinear", align_corners=False, antialias=True
            ).contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            answers: torch.Tensor = self._network(pictures).float()
            if mirrored:
                answers = (answers + self._network(pictures.flip(3)).float()) / 2
        return answers[:, self._order]


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student from the teacher, times temperature squared.

    Args:
        student: Logits `float32 [N,K]`.
        teacher: Logits `float32 [N,K]`.
        temperature: Divides both.

    Returns:
        A scalar: the mean over the pictures.
    """
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
