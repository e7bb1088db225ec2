"""How a network is trained, in one readable place: named recipes, each a table of values.

Knows nothing of networks or data. Why these values: `docs/experiments.md`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from catdog_edge.errors import CatdogError

Policy = Literal["default", "camera", "classic", "none"]
Norms = Literal["built", "frozen", "folded"]


@dataclass(frozen=True)
class Stage:
    """A part of a run and the sizes of its pictures.

    Attributes:
        until: The share of the run's epochs at which the stage ends, above 0, at most 1.
        scales: Each step draws one: height and width in shares of the network's input.
    """

    until: float
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise CatdogError(f"a stage's until is {self.until}; give a share above 0, at most 1")
        if not self.scales or not all(0.1 <= scale <= 2 for scale in self.scales):
            raise CatdogError(f"a stage's scales are {list(self.scales)}; give numbers of 0.1 to 2")


@dataclass(frozen=True)
class Recipe:
    """What decides a training run besides data and architecture.

    Attributes:
        name: What `--recipe` takes; of a file, its stem.
        optimizer: `adam`, `adamw`, `sgd` (with Nesterov's momentum, if any), or `muon` (see there).
        lr: The highest learning rate, for the recipe's own batch size.
        batch_size: Pictures per step.
        epochs: Passes over the training pictures.
        augment: A policy of `catdog_edge.training.engine.augment`.
        schedule: `constant`, or `cosine` down to zero.
        warmup: The share of all steps in which the rate rises from zero.
        weight_decay: For weights of two or more dimensions; biases and batch norms have none.
        momentum: Of SGD and Muon.
        label_smoothing: 0..1.
        ema: Decay per step of the averaged weights that are validated and kept; 0: none.
        least_steps: Small sets get more epochs, until this many steps are reached.
        most_epochs: But never more epochs than this.
        pretrained: Start from ImageNet weights, see `catdog_edge.training.models.pretrained`.
        freeze: Train the last linear layer alone.
        norms: `built`: batch norms as the architecture has them. `frozen`: they keep the
            statistics that they came with, which small sets and low rates spoil. `folded`:
            convolutions without a batch norm train with one, which is folded into them when
            weights are kept.
        stages: Sizes of the pictures over the run; empty: always the network's own.
        detail: Training pictures are held at this multiple of the network's size while they
            are changed, and made smaller afterwards: so a close framing is as sharp as the
            whole picture, and a teacher sees more than its student. Takes its square in
            space for the cache.
        views: Draw so many epochs of batches and go through them again and again: a teacher
            answers each once, which is most of the time of a run with a large one. 0: every
            epoch is drawn anew.
        balance: `auto` weights the loss by class where the largest class has more than 1.5
            times the pictures of the smallest; `none` never does.
        negatives: How many negatives (`--other`) join a batch, as a share of its own pictures;
            files of earlier versions call it `others`.
        backgrounds: The share of these that are made of corners of the training pictures,
            where there is seldom more than a lawn or a wall; for classes that are things in
            a picture, not for classes that fill it.
        distillation: The teacher's share of the loss, 0..1, where there is a teacher.
        distillation_temperature: Divides both logits before the teacher's loss.
        distillation_mirrored: The teacher answers each picture straight and mirrored, and the
            mean counts; twice the teacher's time.
    """

    name: str
    optimizer: Literal["adam", "adamw", "muon", "sgd"]
    lr: float
    batch_size: int
    epochs: int
    augment: Policy
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    label_smoothing: float = 0.0
    ema: float = 0.0
    least_steps: int = 0
    most_epochs: int = 0
    pretrained: bool = False
    freeze: bool = False
    norms: Norms = "built"
    stages: tuple[Stage, ...] = ()
    detail: float = 1.0
    views: int = 0
    balance: Literal["auto", "none"] = "auto"
    negatives: float = 0.15
    backgrounds: float = 0.0
    distillation: float = 0.5
    distillation_temperature: float = 2.0
    distillation_mirrored: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise CatdogError(
                    f"recipe {self.name}: {name} is {value}; give {low:g} to {high:g}"
                )
        ends = [stage.until for stage in self.stages]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise CatdogError(
                f"recipe {self.name}: the stages end at {ends}; each must end after the one "
                "before it, and the last at 1"
            )

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

    def scales(self, epoch: int, epochs: int) -> tuple[float, ...]:
        """The scales that the steps of an epoch, counted from 0, draw from."""
        for stage in self.stages:
            if epoch < round(stage.until * epochs):
                return stage.scales
        return self.stages[-1].scales if self.stages else (1.0,)

    def to_dict(self) -> dict[str, Any]:
        """For YAML; `recipe_files.from_dict` reads it back."""
        document = dataclasses.asdict(self)
        document["stages"] = [
            {"until": stage.until, "scales": list(stage.scales)} for stage in self.stages
        ]
        return document

    def to_yaml(self) -> str:
        """The form that `--recipe FILE.yaml` takes."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))


_BOUNDS: dict[str, tuple[float, float]] = {
    "lr": (1e-9, 1e3),
    "batch_size": (2, 1_000_000),
    "epochs": (1, 1_000_000),
    "warmup": (0, 1),
    "weight_decay": (0, 100),
    "momentum": (0, 0.99999),
    "label_smoothing": (0, 0.99),
    "ema": (0, 0.999999),
    "least_steps": (0, 1_000_000_000),
    "most_epochs": (0, 1_000_000),
    "detail": (1, 4),
    "views": (0, 1_000_000),
    "negatives": (0.001, 10),
    "backgrounds": (0, 0.5),
    "distillation": (0, 1),
    "distillation_temperature": (0.01, 100),
}


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
            augment="camera",
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
            balance="none",
        ),
        # Weights that know ImageNet: a low rate, and the statistics that they came with.
        Recipe(
            name="finetune",
            optimizer="sgd",
            lr=0.004,
            batch_size=32,
            epochs=4,
            least_steps=120,
            most_epochs=20,
            schedule="cosine",
            warmup=0.1,
            weight_decay=1e-4,
            label_smoothing=0.05,
            augment="camera",
            ema=0.998,
            pretrained=True,
            norms="frozen",
        ),
        # The same for a larger network at the size that its pictures have, smaller ones first:
        # how `accurate` was made.
        Recipe(
            name="accurate",
            optimizer="sgd",
            lr=0.004,
            batch_size=32,
            epochs=7,
            least_steps=120,
            most_epochs=20,
            schedule="cosine",
            warmup=0.05,
            weight_decay=1e-4,
            label_smoothing=0.03,
            augment="camera",
            ema=0.998,
            pretrained=True,
            norms="frozen",
            stages=(Stage(0.72, (0.75, 0.9)), Stage(1.0, (1.0,))),
            backgrounds=0.25,
        ),
        # A small network learns what a larger one says (`--teacher`), which sees more of each
        # picture than it does, from pictures smaller than those that it will answer: framing
        # shows things larger than they will be (Touvron and others: Fixing the train-test
        # resolution discrepancy, 2019). How `fast` was made.
        Recipe(
            name="distil",
            optimizer="sgd",
            lr=0.0025,
            batch_size=32,
            epochs=24,
            least_steps=120,
            most_epochs=40,
            schedule="cosine",
            warmup=0.05,
            weight_decay=1e-4,
            augment="camera",
            ema=0.998,
            pretrained=True,
            norms="frozen",
            stages=(Stage(0.8, (0.8333,)), Stage(1.0, (0.8333, 1.0))),
            detail=1.0417,
            views=12,
            backgrounds=0.25,
            distillation=0.8,
            distillation_mirrored=False,
        ),
        # `simple_cnn` within 100 minutes on two cores: small pictures first.
        Recipe(
            name="yardstick",
            optimizer="muon",
            lr=0.012,
            batch_size=64,
            epochs=14,
            least_steps=240,
            most_epochs=40,
            schedule="cosine",
            warmup=0.1,
            weight_decay=0.05,
            label_smoothing=0.1,
            augment="default",
            ema=0.998,
            norms="folded",
            stages=(Stage(0.86, (0.572, 0.715)), Stage(1.0, (1.0,))),
        ),
    )
}
