"""The data of a run: its data sets and negatives, and the images for the trainer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catdog_edge.errors import list_names
from catdog_edge.spec import ResizeStep, crop_and_squash
from catdog_edge.training.array_types import Float64
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data import source_groups
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.negatives import Negatives, NegativeSampler
from catdog_edge.training.engine.trainer import TrainingData

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """Data sets of the same classes, and images of none of them where there are any."""

    datasets: tuple[Dataset, ...]
    negatives: Negatives | None = None

    def check_left_out(self, left_out: Sequence[str]) -> None:
        """Raise `DataError` for a source that does not exist, or if too little would be left."""
        negatives = self.negatives.datasets if self.negatives else ()
        source_groups.check_left_out(self.datasets, negatives, left_out)

    def without(self, left_out: Sequence[str]) -> RunData:
        """Return the data without the images of some sources; see `source_groups.kept_apart`.

        Data sets without a training image come last: the first one is reviewed, and drawn in
        `data.png`.
        """
        others = self.negatives.datasets if self.negatives else ()
        kept = source_groups.kept_apart((*self.datasets, *others), left_out)
        left, others = kept[: len(self.datasets)], kept[len(self.datasets) :]
        datasets = tuple(sorted(left, key=lambda one: not one.items_of("train")))
        return RunData(datasets, self.negatives and replace(self.negatives, datasets=others))

    def write_skipped_csv(self, path: Path) -> None:
        """Write what is left out of every set; see `Dataset.write_skipped_csv`."""
        first, *more = (*self.datasets, *(self.negatives.datasets if self.negatives else ()))
        first.write_skipped_csv(path, more)

    def log_summary(self) -> None:
        """Log a summary of each data set; warn if all images are of one source."""
        for dataset in (*self.datasets, *(self.negatives.datasets if self.negatives else ())):
            dataset.log_summary()
        sources = sorted(
            {name for one in self.datasets for name in source_groups.sources_of(one, "train")}
        )
        if len(sources) > 1:
            log.info(f"sources: {list_names(sources)}; each with its own row in the reports")
        elif not self.datasets[0].is_sample:
            log.warning(
                f"all images of the classes are of one source, {sources[0]}: what a model does on "
                "its test split says little about another camera; add images of other sources "
                "with a second --data"
            )

    def images(self, recipe: Recipe, steps: tuple[ResizeStep, ...]) -> TrainingData:
        """Open the images of training and validation, at the sizes of the recipe."""
        detailed = steps
        if recipe.detail != 1:
            sides = (round(side * recipe.detail) for side in (steps[-1].height, steps[-1].width))
            detailed = crop_and_squash(*sides)
        images, labels, sources = source_groups.combined_pixels(self.datasets, "train", detailed)
        sampler = None
        if self.negatives is not None:
            sampler = NegativeSampler(
                self.negatives.photographs("train", detailed),
                len(self.datasets[0].labels),
                recipe.negatives,
                images,
                recipe.backgrounds,
                recipe.drawn,
                _shares(self.negatives.groups("train"), recipe),
            )
        val = source_groups.combined_pixels(self.datasets, "val", steps)[:2]
        return TrainingData((images, labels), val, sampler, _shares(sources, recipe))


def _shares(sources: Sequence[str], recipe: Recipe) -> Float64 | None:
    if len(set(sources)) < 2:
        return None
    return source_groups.balanced_shares(sources, recipe.source_balance)
