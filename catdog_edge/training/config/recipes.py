"""Recipes: training hyperparameters; `recipes.yaml` defines the built-in ones.

Reasons for the values: `docs/experiments.md`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipe_schema import Bounds, build, check_fields

Policy = Literal["default", "camera", "classic", "none"]
Norms = Literal["built", "frozen", "folded"]
Fraction = Annotated[float, Bounds(0, 1)]
Count = Annotated[int, Bounds(0, 1_000_000)]


@dataclass(frozen=True)
class Stage:
    """A part of a run, which ends at a fraction of its epochs, and its image sizes.

    Each step draws a scale: height and width as fractions of the network's input.
    """

    until: Annotated[float, Bounds(1e-6, 1)]
    scales: tuple[Annotated[float, Bounds(0.1, 2)], ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.scales:
            raise CatdogError("a stage has no scales; give at least one, like [1]")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run except data and architecture.

    Attributes:
        name: Value of `--recipe`; for a file, its stem.
        optimizer: `adam`, `adamw`, `sgd` (Nesterov, where there is momentum) or `muon`.
        lr: Peak learning rate, for the recipe's own batch size.
        batch_size: Images per step.
        epochs: Passes over the training images.
        augment: A policy of `catdog_edge.training.engine.batches.augment`.
        schedule: `constant`, or `cosine` down to zero.
        warmup: Fraction of all steps in which the learning rate rises from zero.
        weight_decay: For weights of two or more dimensions; not for biases and batch norms.
        momentum: Of SGD and Muon.
        label_smoothing: 0..1.
        ema: Decay per step of the averaged weights, which are validated and kept; 0 disables.
        least_steps: Small sets get more epochs, until this many steps are reached.
        most_epochs: The limit of `least_steps`, in epochs.
        pretrained: Start from ImageNet weights, see `catdog_edge.training.models.pretrained`.
        freeze: Train only the last linear layer.
        norms: `built`: batch norms as the architecture has them. `frozen`: they keep their
            statistics, which small sets and low rates spoil. `folded`: convolutions without a
            batch norm train with one, which is folded into them when weights are kept.
        stages: Image sizes over the run; empty: always the network's own.
        detail: Training images are held at this multiple of the network's size while they
            are augmented, and resized afterwards: a close crop stays sharp, and a teacher
            sees more than its student. The cache takes the square of it in space.
        views: Draw this many epochs of batches and repeat them: a teacher answers each once,
            which is most of the time of a run with a large one. 0: draw every epoch again.
        balance: `auto` weights the loss by class where the largest class has more than 1.5
            times the images of the smallest; `none` never does.
        source_balance: For data of several sources: 0 samples uniformly over images, 1 over
            sources; between them the weight of a source is its size to the power of 1 minus
            this value.
        head: `new`: a new last layer. `imagenet`: the thousand ImageNet categories, summed to
            the classes and to `neither`, see `catdog_edge.training.models.imagenet_head`;
            a new one if `IMAGENET_GROUPS` there lacks a class.
        keep_imagenet: With `head: imagenet`: the weight of a second loss, against the outputs
            of the pretrained weights within the labelled class, which preserves their
            categories (Li and Hoiem: Learning without Forgetting, 2016).
        group_temperature: With `head: imagenet`: T of `T * log(sum(exp(logits / T)))`, by which the
            trained categories of none of the classes are summed; 1 sums their probabilities.
        start_share: The weight of the pretrained weights in the final ones, which are the
            weighted mean of both (Wortsman and others: Robust fine-tuning, 2022).
        negatives: Number of negatives (`--other`) per batch, relative to its own images;
            files of earlier versions call it `others`.
        backgrounds: Fraction of the negatives that are made from corners of training images;
            for classes that are objects in an image, not for classes that fill it.
        drawn: Fraction of the other negatives that are drawn, if there are photographs too.
        distillation: The teacher's weight in the loss, 0..1.
        distillation_temperature: Divisor of both logits before the teacher's loss.
        distillation_mirrored: The teacher classifies each image and its mirror image, and the
            mean is used; twice the teacher's time.
    """

    name: str
    optimizer: Literal["adam", "adamw", "muon", "sgd"]
    lr: Annotated[float, Bounds(1e-9, 1e3)]
    batch_size: Annotated[int, Bounds(2, 1_000_000)]
    epochs: Annotated[int, Bounds(1, 1_000_000)]
    augment: Policy
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Fraction = 0.0
    weight_decay: Annotated[float, Bounds(0, 100)] = 0.0
    momentum: Annotated[float, Bounds(0, 0.99999)] = 0.9
    label_smoothing: Annotated[float, Bounds(0, 0.99)] = 0.0
    ema: Annotated[float, Bounds(0, 0.999999)] = 0.0
    least_steps: Annotated[int, Bounds(0, 1_000_000_000)] = 0
    most_epochs: Count = 0
    pretrained: bool = False
    freeze: bool = False
    norms: Norms = "built"
    stages: tuple[Stage, ...] = ()
    detail: Annotated[float, Bounds(1, 4)] = 1.0
    views: Count = 0
    balance: Literal["auto", "none"] = "auto"
    source_balance: Fraction = 0.4
    head: Literal["new", "imagenet"] = "new"
    keep_imagenet: Annotated[float, Bounds(0, 100)] = 0.0
    group_temperature: Annotated[float, Bounds(0.1, 10)] = 1.0
    start_share: Fraction = 0.0
    negatives: Annotated[float, Bounds(0.001, 10)] = 0.15
    backgrounds: Annotated[float, Bounds(0, 0.5)] = 0.0
    drawn: Fraction = 0.4
    distillation: Fraction = 0.5
    distillation_temperature: Annotated[float, Bounds(0.01, 100)] = 2.0
    distillation_mirrored: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        ends = [stage.until for stage in self.stages]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise CatdogError(
                f"the stages of the recipe {self.name} end at {ends}; each must end after the "
                "one before it, and the last at 1"
            )

    def epochs_for(self, images: int, batch_size: int) -> int:
        """Return the number of epochs for a set of this many training images."""
        wanted = math.ceil(self.least_steps / max(1, math.ceil(images / batch_size)))
        return max(self.epochs, min(wanted, self.most_epochs))

    def rate(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate, 0..1, at a step (from 0) of the whole run."""
        warmup = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    def scales(self, epoch: int, epochs: int) -> tuple[float, ...]:
        """Return the scales that the steps of an epoch, counted from 0, draw from."""
        for stage in self.stages:
            if epoch < round(stage.until * epochs):
                return stage.scales
        return self.stages[-1].scales if self.stages else (1.0,)

    def to_dict(self) -> dict[str, Any]:
        """Convert the recipe to plain values; `from_dict` reads them back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def to_yaml(self) -> str:
        """Convert the recipe to YAML, for `--recipe FILE.yaml`."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))


RENAMED = {"others": "negatives"}  # names of attributes in files of earlier versions


def recipe(name: str) -> Recipe:
    """Look up a recipe in `RECIPES`, or read it from a `.yaml` file.

    Raises:
        CatdogError: The name is unknown, the file cannot be read, or see `from_dict`.

    Examples:
        >>> recipe("classic").lr
        0.001
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise CatdogError(
            f"there is no recipe {name!r}; choose one of: {', '.join(RECIPES)}; or name a "
            ".yaml file (one to start from: catdog-edge train --show-recipe)"
        )
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatdogError(
            f"cannot read the recipe {path}: {error.strerror}; make one to start from with: "
            f"catdog-edge train --show-recipe > {path.name}"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise CatdogError(f"{path} is not YAML ({reason}); correct it") from error
    if not isinstance(document, dict):
        raise CatdogError(f"{path} is not a recipe; expected lines like `lr: 0.01`")
    return from_dict({**document, "name": path.stem}, str(path))


def from_dict(document: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from plain values, those with a default may be missing.

    Raises `CatdogError` for a wrong name or value, which begins with `source`, their file.
    """
    try:
        return build(Recipe, {RENAMED.get(name, name): value for name, value in document.items()})
    except CatdogError as error:
        raise CatdogError(f"{source}: {error}") from error


def parse_yaml(text: str) -> Any:
    """Parse a YAML document; raises `ValueError` if it or a value is invalid."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    # PyYAML lets errors of its constructors through: a date of month 13, an `!!int` that is
    # none, a number of thousands of digits, brackets as deep as its stack.
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"a value in it cannot be read: {error}") from error


RECIPES = {
    name: from_dict({**values, "name": name}, name)
    for name, values in parse_yaml(Path(__file__).with_suffix(".yaml").read_text("utf-8")).items()
}
"""The recipes of `recipes.yaml` by name, the default first."""
