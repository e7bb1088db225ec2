"""How a network is trained, in one readable place: two recipes, each a table of values.

Knows nothing of networks or data. Why these values: `docs/experiments.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from catdog_edge.errors import CatdogError


@dataclass(frozen=True)
class Recipe:
    """What decides a training run besides data and architecture.

    Attributes:
        name: What `--recipe` takes.
        optimizer: `adam`, `adamw`, `sgd` (with Nesterov momentum), or `muon` (see there).
        lr: The highest learning rate, for the recipe's own batch size.
        batch_size: Pictures per step.
        epochs: Passes over the training pictures.
        least_steps: Small sets get more epochs, until this many steps are reached.
        most_epochs: But never more epochs than this.
        weight_decay: For weights of two or more dimensions; biases and batch norms have none.
        momentum: Of SGD and Muon.
        schedule: `constant`, or `cosine` down to zero.
        warmup: The share of all steps in which the rate rises from zero.
        label_smoothing: 0..1.
        augment: A policy of `catdog_edge.training.augment`.
        ema: Decay per step of the averaged weights that are validated and kept; 0: none.
    """

    name: str
    optimizer: Literal["adam", "adamw", "muon", "sgd"]
    lr: float
    batch_size: int
    epochs: int
    augment: Literal["default", "classic", "none"]
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    label_smoothing: float = 0.0
    ema: float = 0.0
    least_steps: int = 0
    most_epochs: int = 0

    def epochs_for(self, pictures: int, batch_size: int) -> int:
        """Passes over a set of this many training pictures."""
        wanted = math.ceil(self.least_steps / max(1, math.ceil(pictures / batch_size)))
        return max(self.epochs, min(wanted, self.most_epochs))

    def rate(self, step: int, steps: int) -> float:
        """The factor of the learning rate at a step, 0..1.

        Args:
            step: Counted from 0 over the whole run.
            steps: Of the whole run.
        """
        warmup = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="default",
            optimizer="muon",
            lr=0.012,
            batch_size=64,
            epochs=16,
            least_steps=240,
            most_epochs=40,
            schedule="cosine",
            warmup=0.15,
            weight_decay=0.05,
            label_smoothing=0.1,
            augment="default",
            ema=0.998,
        ),
        # The known system's recipe, kept as it was: no schedule, no decay, no averaging.
        Recipe(
            name="classic",
            optimizer="adam",
            lr=1e-3,
            batch_size=20,
            epochs=40,
            augment="classic",
        ),
    )
}


def recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        CatdogError: There is none of that name.
    """
    if name not in RECIPES:
        raise CatdogError(f"there is no recipe {name!r}; choose one of: {', '.join(RECIPES)}")
    return RECIPES[name]
