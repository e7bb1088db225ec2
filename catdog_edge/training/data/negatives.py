"""The pictures of `--other`: opened, split, at the model's size.

Joins the photographs of a source with `others`, which draws; knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError
from catdog_edge.spec import ResizeStep
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data.decode import Progress
from catdog_edge.training.data.listing import Split
from catdog_edge.training.data.load import Dataset, open_others, pixels
from catdog_edge.training.data.others import Others, draw_nothing
from catdog_edge.training.data.sources import PETS, SAMPLE
from catdog_edge.training.words import describe

DRAWN = "drawn"
"""What `--other` takes for no photographs, drawings alone."""

DRAWN_PICTURES = 200
"""Drawings that a threshold is looked at with, besides photographs."""


@dataclass(frozen=True)
class OtherSet:
    """Pictures of none of the classes.

    Attributes:
        dataset: The photographs; `None`: drawings alone.
        steps: The resize rule of the model.
    """

    dataset: Dataset | None
    steps: tuple[ResizeStep, ...]

    @property
    def name(self) -> str:
        """For the spec: no path of this machine."""
        return Path(self.dataset.source).name if self.dataset else DRAWN

    def photographs(
        self, split: Split, steps: tuple[ResizeStep, ...] | None = None
    ) -> npt.NDArray[np.uint8]:
        """`uint8 [M,H,W,3]`, BGR, by the model's rule or another one.

        There are none where there are drawings alone.
        """
        steps = steps or self.steps
        if self.dataset is None:
            return np.zeros((0, steps[-1].height, steps[-1].width, 3), np.uint8)
        return pixels(self.dataset, split, steps)[0]

    def for_training(
        self,
        label: int,
        recipe: Recipe,
        steps: tuple[ResizeStep, ...],
        pictures: npt.NDArray[np.uint8],
    ) -> Others:
        """What joins the batches, by the rule of the training pictures; see `Others`."""
        photographs = self.photographs("train", steps)
        return Others(photographs, label, recipe.others, pictures, recipe.backgrounds)


def drawings(steps: tuple[ResizeStep, ...], seed: int = 20_000) -> npt.NDArray[np.uint8]:
    """Drawings of nothing that no training sees: `uint8 [M,H,W,3]`, BGR."""
    last = steps[-1]
    return np.stack(
        [
            draw_nothing(last.height, last.width, np.random.default_rng([seed, number]))
            for number in range(DRAWN_PICTURES)
        ]
    )


def check_other(source: str | None) -> None:
    """Refuse what `--other` cannot be before any picture is read.

    Raises:
        DataError: There is no such folder or zip.
    """
    if source in (None, DRAWN, SAMPLE, PETS):
        return
    if not source or not Path(source).expanduser().exists():
        raise DataError(
            f"there is no folder or zip {source!r}; give --other a folder of pictures, a .zip, or "
            f"{DRAWN!r}"
        )


def open_other_set(
    source: str | None, steps: tuple[ResizeStep, ...], progress: Progress | None
) -> OtherSet | None:
    """Open what `--other` names.

    Raises:
        DataError: See `data.open_others`.
    """
    if source is None:
        return None
    if source == DRAWN:
        return OtherSet(None, steps)
    dataset = open_others(source, steps=steps, progress=progress)
    describe(dataset)
    return OtherSet(dataset, steps)
