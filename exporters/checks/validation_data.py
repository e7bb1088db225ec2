"""Find the images to check a file on (validation) and to calibrate it with (training).

The test split is never read here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError, list_names
from catdog_edge.spec import ModelSpec
from catdog_edge.training.array_types import Labels, Pixels
from catdog_edge.training.data.dataset import Dataset, Split
from catdog_edge.training.data.folder_or_zip import SAMPLE
from catdog_edge.training.data.open_dataset import open_dataset, open_negative_images, pixels
from catdog_edge.training.evaluation.inference import check_labels
from catdog_edge.training.runs.run_folder import Run

log = logging.getLogger(__name__)

ENOUGH = 1000
"""Agreement is judged on this many images where the validation split is smaller: training images
make up for it, see `ValidationSet.more`."""

LEAST = 32  # fewer images say too little about the range of an activation


@dataclass(frozen=True)
class ValidationSet:
    """Images to check a file on."""

    images: Pixels  # `uint8 [N,S,S,3]`, BGR, of the model's size; may be a memory map
    truth: Labels | None  # `[N]`; `None` where they say nothing of accuracy
    files: tuple[str, ...]  # their names
    source: str  # what they are, as text
    more: Callable[[], Pixels | None] = lambda: None  # for agreement alone: models are fitted to it


@dataclass(frozen=True)
class ModelData:
    """The data sets of a model, or a substitute if they are `missing`: the reason, else empty.

    Without `labelled`, the classes of the images are unknown.
    """

    datasets: tuple[Dataset, ...]
    missing: str = ""
    labelled: bool = True

    @property
    def name(self) -> str:
        """The names of the data sets, without folders if these differ, for metadata."""
        names = [one.short_name for one in self.datasets]
        if len(set(names)) < len(names):
            names = [one.name for one in self.datasets]
        return list_names(names).encode("utf-8", "backslashreplace").decode()

    def validation(self, spec: ModelSpec, limit: int | None = None) -> ValidationSet:
        """Read the validation images, at most `limit` of them, stratified."""
        images, truth, files = self._read("val", spec, limit)
        return ValidationSet(
            images=images,
            truth=truth if self.labelled and not self.missing else None,
            files=tuple(files),
            source=f"{len(files):,} validation images of {self.name}",
            more=lambda: self._training(spec, ENOUGH - len(files)),
        )

    def calibration(self, spec: ModelSpec, count: int) -> Pixels:
        """Read a stratified part of the training images, `uint8 [N,S,S,3]`, BGR.

        There are `count` of them, or as many as the images have classes if that is more.

        Raises `DataError` if the data is missing, has too few images or lacks a class.
        """
        if self.missing:
            raise DataError(
                f"{self.missing}; static quantization measures activations on training images: "
                "name them with --data"
            )
        classes = spec.labels if self.labelled else self.datasets[0].labels
        images, truth, _ = self._read("train", spec, max(count, len(classes)))
        check_calibration(truth, classes, list_names([one.source for one in self.datasets]))
        return images

    def _training(self, spec: ModelSpec, count: int) -> Pixels | None:
        if count <= 0 or not any(one.items_of("train") for one in self.datasets):
            return None
        return self._read("train", spec, count)[0]

    def _read(
        self, split: Split, spec: ModelSpec, count: int | None
    ) -> tuple[Pixels, Labels, list[str]]:
        """Read at most `count` images of a split, stratified, their labels and their files.

        Only these are in memory; all images of a single data set stay memory-mapped.
        """
        parts = [pixels(one, split, spec.resize) for one in self.datasets]
        truth = np.concatenate([labels for _, labels, _ in parts])
        before = [f"{one.name}/" if len(parts) > 1 else "" for one in self.datasets]
        files = [name + item.file for name, part in zip(before, parts) for item in part[2]]
        places = stratified(truth, len(truth) if count is None else count)
        if len(parts) == 1 and len(places) == len(truth):
            return parts[0][0], truth, files
        chosen, start = [], 0
        for images, labels, _ in parts:
            inside = places[(places >= start) & (places < start + len(labels))]
            chosen.append(images[inside - start])
            start += len(labels)
        return np.concatenate(chosen), truth[places], [files[place] for place in places]


def find_data(spec: ModelSpec, weights: Path, run: Run | None, data: str | None) -> ModelData:
    """Open the data to check a model on; `weights` is its file, for messages.

    `data` is as in `--data`; `None`: the run's data, without a run `$CATDOG_DATA`, and without
    either drawings. Raises `DataError` if the requested data does not exist, is damaged, or has
    other classes.
    """

    def fits(*datasets: Dataset) -> tuple[Dataset, ...]:
        for one in datasets:
            check_labels(spec, one.labels, weights, one.source)
        return datasets

    named = os.environ.get("CATDOG_DATA") if data is None and run is None else data
    if named is not None and (named or data is not None):
        try:
            # Neither the test split nor, but for a calibration, the training split is needed here.
            return ModelData(fits(open_dataset(named, required=("val",))))
        except DataError as error:
            if "imported" not in spec.trained_on:
                raise
            log.info(f"note: {error}; its images are taken without labels")
        return ModelData((open_negative_images(named),), labelled=False)
    missing = f"{weights} is in no run folder, and no data was named"
    if run is not None:
        try:
            return ModelData(fits(*run.datasets()))
        except DataError as error:
            missing = str(error)
    log.info(f"note: {missing}; checking on drawings instead, which says nothing of accuracy")
    return ModelData((open_dataset(SAMPLE),), missing)


def check_calibration(labels: Labels, classes: tuple[str, ...], source: str) -> None:
    """Check that there are enough images to calibrate on, of every class.

    Args:
        labels: Their class indices, `int64 [N]`.
        classes: The names of the classes.
        source: Where the images come from, for messages.

    Raises:
        DataError: There are too few, or none of a class.
    """
    if len(labels) < LEAST:
        raise DataError(
            f"{source}: {len(labels)} training images to calibrate on, required at least {LEAST}; "
            "name more data with --data"
        )
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if missing:
        raise DataError(
            f"{source}: the training images to calibrate on have no {classes[missing[0]]!r}; "
            "name data with every class with --data"
        )


def stratified(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """Choose up to `count` indices of `labels`, stratified by class and evenly spaced.

    `labels` are class indices, `int64 [N]`; the result is `int64 [M]`, ascending.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    kinds, sizes = np.unique(labels, return_counts=True)
    # Fill the smallest classes first; what they lack, the larger ones make up for.
    taken: list[npt.NDArray[np.int64]] = []
    left = count
    for done, kind in enumerate(kinds[np.argsort(sizes, kind="stable")]):
        places = np.flatnonzero(labels == kind)
        share = min(len(places), left // (len(kinds) - done))
        taken.append(places[np.linspace(0, len(places) - 1, share).astype(np.int64)])
        left -= share
    return np.sort(np.concatenate(taken))
