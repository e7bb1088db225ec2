"""The options of `catdog-edge train`, and the recipe that they result in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.config.recipes import Recipe, recipe


@dataclass(frozen=True)
class TrainOptions:
    """The options of `catdog-edge train`; `None` leaves the choice to recipe and data."""

    data: tuple[str, ...]
    labels: tuple[str, ...] | None
    split: tuple[int, int, int]
    limit: int | None
    arch: str | None
    recipe: str | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    size: int | None
    pretrained: bool | None
    freeze: bool | None
    teacher: Path | None
    other: tuple[str, ...]
    name: str | None
    seed: int
    patience: int
    device: str
    precision: str
    leave_out: tuple[str, ...] = ()
    reject_at: str = "eer"
    keep_damaged: bool = False


def wants_pretrained(options: TrainOptions) -> bool | None:
    """Check whether the options request ImageNet weights; `None` if unspecified."""
    if options.pretrained is not None:
        return options.pretrained
    if options.recipe is not None:
        return recipe(options.recipe).pretrained
    if options.teacher is not None:  # which is what a small network learns from instead
        return False
    return True if options.freeze else None


def settled_recipe(options: TrainOptions, usual: str) -> Recipe:
    """Apply the options to the recipe that they name, or to the default one."""
    # The default recipe's learning rate would destroy pretrained features.
    chosen = recipe(options.recipe or ("finetune" if options.pretrained else usual))
    # A smaller batch than the recipe's needs a proportionally lower rate.
    smaller = min(1.0, (options.batch_size or chosen.batch_size) / chosen.batch_size)
    changes: dict[str, Any] = {"lr": options.lr or chosen.lr * smaller}
    for name in ("epochs", "batch_size", "pretrained", "freeze"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    if options.epochs:  # what was asked for is not stretched for a small set
        changes["least_steps"] = 0
    return replace(chosen, **changes)


def check_batch(batch_size: int, processes: int) -> None:
    """Raise `CatdogError` if a process gets fewer than two images of a batch (batch norm)."""
    if batch_size < 2 * processes:
        raise CatdogError(
            f"a batch of {batch_size} is less than two images for each of {processes} "
            f"processes; give --batch-size {2 * processes} or more, or start fewer"
        )


def check_count(images: int, processes: int) -> None:
    """Raise `CatdogError` if there are fewer than two training images for each process."""
    if images < 2 * processes:
        raise CatdogError(
            f"{images} training images are too few for {processes} processes; start fewer, or add "
            "images"
        )


def check_scales(network: torch.nn.Module, spec: ModelSpec, chosen: Recipe) -> None:
    """Raise `CatdogError` if the recipe's smallest images are too small for the network."""
    scales = [scale for stage in chosen.stages for scale in stage.scales]
    smallest = min(scales, default=1.0)
    height, width = (max(1, round(side * smallest)) for side in spec.size)
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, height, width))
    except RuntimeError as error:
        what = f"scale {smallest:g} of recipe {chosen.name}" if scales else "--size"
        raise CatdogError(
            f"{spec.architecture} cannot take images of {height} x {width}: nothing is left of "
            f"them in its last layers; give a larger {what}"
        ) from error
    finally:
        network.train()
