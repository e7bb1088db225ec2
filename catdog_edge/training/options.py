"""The options of `catdog-edge train`, and the recipe that they settle on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catdog_edge.training.models import architecture
from catdog_edge.training.recipe_files import recipe
from catdog_edge.training.recipes import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """The options of `catdog-edge train`; `None` leaves the choice to the recipe."""

    data: str | None
    labels: tuple[str, ...] | None
    split: tuple[int, int, int]
    limit: int | None
    arch: str
    recipe: str | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    size: int | None
    pretrained: bool | None
    freeze: bool | None
    teacher: Path | None
    other: str | None
    name: str | None
    seed: int
    patience: int
    device: str
    precision: str


def settled_recipe(options: TrainOptions) -> Recipe:
    """The recipe with what the options change of it.

    Raises:
        CatdogError: See `recipe`.
    """
    # The default recipe's rate would wash out what pretrained weights know.
    usual = "finetune" if options.pretrained else architecture(options.arch).recipe
    chosen = recipe(options.recipe or usual)
    changes: dict[str, Any] = {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "pretrained": options.pretrained,
        "freeze": options.freeze,
        # A smaller batch than the recipe's bears a lower rate, in proportion.
        "lr": options.lr
        or chosen.lr * min(1.0, (options.batch_size or chosen.batch_size) / chosen.batch_size),
    }
    chosen = replace(
        chosen, **{name: value for name, value in changes.items() if value is not None}
    )
    # Epochs that were asked for are not stretched for a small set.
    return replace(chosen, least_steps=0) if options.epochs else chosen
