"""Negatives: out-of-class images from `--other`, and empty scenes that are drawn.

A drawn scene shows plain and shaded walls, noise, stripes and tiles, or rooms of flat shapes.
Each depends on its random generator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from catdog_edge.errors import DataError
from catdog_edge.spec import ResizeStep
from catdog_edge.system.files import expand_path
from catdog_edge.training.array_types import Float64, Pixels
from catdog_edge.training.data import oxford_pets
from catdog_edge.training.data.dataset import Dataset, Split
from catdog_edge.training.data.folder_or_zip import SAMPLE
from catdog_edge.training.data.open_dataset import NEGATIVES_SPLIT, open_negative_images
from catdog_edge.training.data.source_groups import combined_pixels, kinds_of, sources_of
from catdog_edge.training.data.source_names import told_apart

DRAWN = "drawn"  # what `--other` takes for no photographs, drawings alone
DRAWN_SEED = 20_000  # not used in training
DRAWN_COUNT = 200  # drawn scenes on which a threshold is evaluated, besides photographs
CROP_SHARE = 0.5  # the share of the photographs of which a part fills the frame: a wheel, a window


@dataclass(frozen=True)
class Negatives:
    """Out-of-class images."""

    datasets: tuple[Dataset, ...]  # the photographs; empty: drawings alone
    steps: tuple[ResizeStep, ...]  # the resize rule of the model

    @property
    def sources(self) -> list[str]:
        """The values of `--other` as absolute paths."""
        return [dataset.source for dataset in self.datasets] or [DRAWN]

    @property
    def name(self) -> str:
        """Name for the spec, without paths of this machine."""
        return ", ".join(Path(dataset.source).name for dataset in self.datasets) or DRAWN

    def photographs(self, split: Split, steps: tuple[ResizeStep, ...] | None = None) -> Pixels:
        """Return `uint8 [M,H,W,3]`, BGR, resized by the model's rule or another one."""
        steps = steps or self.steps
        if self.datasets:
            return combined_pixels(self.datasets, split, steps)[0]
        return np.zeros((0, steps[-1].height, steps[-1].width, 3), np.uint8)

    def groups(self, split: Split) -> list[str]:
        """Return the group of each photograph, `KIND/SOURCE`, in the order of `photographs`."""
        found = []
        for one in self.datasets:
            pairs = zip(kinds_of(one, split), sources_of(one, split))
            found += [f"{kind}/{source}" for kind, source in pairs]
        return found


def drawn_negatives(steps: tuple[ResizeStep, ...]) -> Pixels:
    """Draw empty scenes that are not used in training: `uint8 [M,H,W,3]`, BGR."""
    generators = (np.random.default_rng([DRAWN_SEED, number]) for number in range(DRAWN_COUNT))
    size = steps[-1].height, steps[-1].width
    return np.stack([draw_empty_scene(*size, generator) for generator in generators])


def check_negatives(sources: Sequence[str]) -> None:
    """Raise `DataError` for a value of `--other` that is not a folder or zip."""
    for source in set(sources) - {DRAWN, SAMPLE, oxford_pets.NAME}:
        if not source or not expand_path(source).exists():
            raise DataError(
                f"there is no folder or zip {source!r}; give --other a folder of images, a "
                f".zip, or {DRAWN!r}"
            )


def negatives_split(trained_on: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the split of the negatives that a model was trained with, by its spec."""
    return tuple(trained_on.get("other_split") or (0.4, 0.1, 0.5))  # of earlier versions


def open_negatives(
    sources: Sequence[str],
    steps: tuple[ResizeStep, ...],
    split: Sequence[float] = NEGATIVES_SPLIT,
    keep_damaged: bool = False,
    known: Sequence[str] = (),
) -> Negatives | None:
    """Open the source of each `--other`; `None` without any.

    The sources are folders, zips, or `drawn`, which adds no photographs; see `open_dataset` and,
    for names that are `known`, `told_apart` for the other arguments.
    """
    if not sources:
        return None
    how: Any = {"steps": steps, "split": split, "keep_damaged": keep_damaged}
    opened = [open_negative_images(source, **how) for source in sources if source != DRAWN]
    return Negatives(told_apart(opened, known), steps)


@dataclass(frozen=True)
class NegativeSampler:
    """Images of none of the classes, to be mixed into the batches."""

    photographs: Pixels  # `uint8 [M,H,W,3]`, BGR; may be memory-mapped
    label: int  # the index that stands for none of the classes
    share: float  # how many join a batch, as a share of its images
    images: Pixels | None = None  # `uint8 [N,H,W,3]`: of the classes, for backgrounds
    backgrounds: float = 0.0  # share of backgrounds, made from corners of `images`
    drawn: float = 0.4  # share of drawings in the rest, where there are photographs as well
    shares: Float64 | None = None  # how often each photograph is drawn, sum 1; `None`: all alike

    def draw(self, generator: Generator) -> Pixels:
        """Draw one negative, `uint8 [H,W,3]`, BGR."""
        chosen = self.choose(generator)
        if chosen.kind == "drawn":
            height, width = self.photographs.shape[1:3]
            return draw_empty_scene(height, width, generator)
        images = self.images if chosen.kind == "background" else self.photographs
        assert images is not None
        return _grown(np.array(images[chosen.image]), chosen)

    def choose(self, generator: Generator) -> Choice:
        """Choose one negative; drawing it uses the generator from there on."""
        height, width = self.photographs.shape[1:3]
        if self.images is not None and self.backgrounds and generator.random() < self.backgrounds:
            index = int(generator.integers(len(self.images)))
            return Choice("background", index, *_corner(height, width, generator))
        if len(self.photographs) == 0 or generator.random() < self.drawn:
            return Choice("drawn")
        index = self._choose_photograph(generator)
        if generator.random() >= CROP_SHARE:
            return Choice("photograph", index)
        return Choice("photograph", index, *_part(height, width, generator))

    def _choose_photograph(self, generator: Generator) -> int:
        if self.shares is None:
            return int(generator.integers(len(self.photographs)))
        place = int(np.searchsorted(np.cumsum(self.shares), generator.random()))
        return min(place, len(self.photographs) - 1)


class Choice(NamedTuple):
    """A crop of an image, enlarged to the whole frame; a height of 0 keeps the image."""

    kind: Literal["photograph", "background", "drawn"]
    image: int = 0  # of the photographs, or of the images of the classes
    top: int = 0
    left: int = 0
    height: int = 0
    width: int = 0
    times: int = 1  # how often the part is repeated each way, mirrored side by side


def _part(height: int, width: int, generator: Generator) -> tuple[int, int, int, int]:
    """Choose a random box of a quarter to three quarters of each side."""
    tall, wide = (max(1, int(side * generator.uniform(0.25, 0.75))) for side in (height, width))
    top, left = (int(generator.integers(room + 1)) for room in (height - tall, width - wide))
    return top, left, tall, wide


def _corner(height: int, width: int, generator: Generator) -> tuple[int, int, int, int, int]:
    """Choose a corner, which rarely shows the object, and its number of repeats each way."""
    tall = max(2, int(height * generator.uniform(0.11, 0.25)))
    wide = max(2, int(width * generator.uniform(0.11, 0.25)))
    below, right = generator.random(2) < 0.5
    top, left = (height - tall) * int(below), (width - wide) * int(right)
    return top, left, tall, wide, int(generator.integers(1, 5))


def _grown(image: Pixels, chosen: Choice) -> Pixels:
    if not chosen.height:
        return image
    height, width = image.shape[:2]
    rows = slice(chosen.top, chosen.top + chosen.height)
    columns = slice(chosen.left, chosen.left + chosen.width)
    more = chosen.times - 1
    around = (0, more * chosen.height), (0, more * chosen.width), (0, 0)
    part = np.pad(image[rows, columns], around, "symmetric")
    grown = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown, dtype=np.uint8)


def draw_empty_scene(height: int, width: int, generator: Generator) -> Pixels:
    """Draw an empty scene, `uint8 [H,W,3]`, BGR."""
    image = _KINDS[generator.integers(len(_KINDS))](height, width, generator)
    if generator.random() < 0.5:
        image = image + generator.normal(0, generator.uniform(1, 12), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _colour(generator: Generator) -> Float64:
    """Draw a colour; most walls, floors and skies are nearly grey."""
    level = generator.uniform(0, 255)
    return np.clip(level + generator.normal(0, generator.choice([4, 20, 70]), 3), 0, 255)


def _plain(height: int, width: int, generator: Generator) -> Float64:
    return np.broadcast_to(_colour(generator), (height, width, 3)).copy()


def _shaded(height: int, width: int, generator: Generator) -> Float64:
    """Draw a surface with a gradient of light."""
    angle = generator.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    along = x * np.cos(angle) + y * np.sin(angle)
    along = (along - along.min()) / max(np.ptp(along), 1e-9)
    weight = (along ** generator.uniform(0.5, 2))[..., None]
    shaded: Float64 = _colour(generator) * (1 - weight) + _colour(generator) * weight
    return shaded


def _noise(height: int, width: int, generator: Generator) -> Float64:
    """Draw noise of one or more grain sizes, grey or coloured: lawn, gravel, plaster, static."""
    image = np.zeros((height, width, 3))
    channels = int(generator.choice([1, 3]))
    for _ in range(int(generator.integers(1, 4))):
        grain = int(2 ** generator.uniform(0, 5))
        small = (max(2, width // grain), max(2, height // grain))
        values = generator.normal(0, 1, (small[1], small[0], channels))
        grown = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
        image += grown.reshape(height, width, channels)
    return _colour(generator) + image * generator.uniform(5, 60)


def _stripes(height: int, width: int, generator: Generator) -> Float64:
    """Draw boards, tiles, fences or blinds in perspective."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    tilt = generator.uniform(-0.5, 0.5) / height
    angle = generator.uniform(0, np.pi)
    period = generator.uniform(0.04, 0.5) * width
    along = (x * np.cos(angle) + y * np.sin(angle)) * (1 + tilt * y)
    across = (y * np.cos(angle) - x * np.sin(angle)) * (1 + tilt * y)
    pattern = (along % period) < period * generator.uniform(0.05, 0.6)
    if generator.random() < 0.5:
        pattern = pattern ^ ((across % period) < period * generator.uniform(0.05, 0.6))
    ground = _shaded(height, width, generator)
    return np.where(pattern[..., None], _colour(generator), ground)


def _room(height: int, width: int, generator: Generator) -> Float64:
    """Draw a wall, a floor, and flat objects in front of them."""
    image = _shaded(height, width, generator)
    horizon = int(height * generator.uniform(0.3, 0.9))
    image[horizon:] = _shaded(height, width, generator)[horizon:]
    for _ in range(int(generator.integers(0, 9))):
        colour = tuple(_colour(generator).tolist())
        centre = generator.uniform(0, 1, 2) * (width, height)
        size = generator.uniform(0.05, 0.5, 2) * (width, height)
        if generator.random() < 0.7:
            angle = float(generator.choice([0, 0, generator.uniform(0, 90)]))
            box = (tuple(centre), tuple(size), angle)
            cv2.fillConvexPoly(image, cv2.boxPoints(box).astype(np.int32), colour)
        else:
            cv2.ellipse(image, (tuple(centre), tuple(size), generator.uniform(0, 180)), colour, -1)
    return cv2.GaussianBlur(image, (0, 0), generator.uniform(0.3, 2)).astype(np.float64)


_KINDS: tuple[Callable[[int, int, Generator], Float64], ...] = (
    *(_plain, _shaded, _noise, _noise, _stripes, _room, _room),
)
