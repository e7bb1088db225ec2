"""Which pictures an exported file is checked on and calibrated with.

Knows runs and data sets: validation pictures check, training pictures calibrate, and the test
split is never touched here. What is done with them is for the caller.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.load import open_dataset, pixels
from catdog_edge.training.data.sources import SAMPLE
from catdog_edge.training.evaluation.evaluation import check_labels
from catdog_edge.training.runs.progress import ReadingProgress
from catdog_edge.training.runs.run_folder import Run
from exporters.checks.session import Pictures
from exporters.static_int8.calibrate import check_pictures, stratified

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Pictures to check a file on.

    Attributes:
        pictures: `uint8 [N,S,S,3]`, BGR, of the model's size; may be a memory map.
        truth: `int64 [N]`, true classes; `None` where the pictures tell nothing of them.
        files: Their names.
        source: What they are, in words.
    """

    pictures: Pictures
    truth: npt.NDArray[np.int64] | None
    files: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Data:
    """The data set that belongs to a model, or a stand-in.

    Attributes:
        dataset: The pictures.
        missing: Why the model's own data is not here; empty where it is.
    """

    dataset: Dataset
    missing: str = ""

    @property
    def name(self) -> str:
        """What it is called, without folders."""
        return self.dataset.short_name


def find_data(spec: ModelSpec, weights: Path, run: Run | None, data: str | None) -> Data:
    """Open the data that a model is to be checked on.

    Args:
        spec: Of the model.
        weights: Its file, for messages.
        run: The run folder it lies in, if it does.
        data: A folder, a `.zip` or `sample` that was asked for; `None` takes the run's data,
            without a run `$CATDOG_DATA`. Where there is neither, drawings stand in.

    Raises:
        DataError: What was asked for is not there or damaged, or has other classes.
    """
    if data is not None:
        # Neither the test split nor, but for a calibration, the training split is needed here.
        named = open_dataset(data, progress=ReadingProgress(), required=("val",))
        return Data(_checked(named, spec, weights))
    if run is not None:
        try:
            return Data(_checked(run.dataset(progress=ReadingProgress()), spec, weights))
        except DataError as error:
            missing = str(error)
    elif os.environ.get("CATDOG_DATA"):
        named = open_dataset(None, progress=ReadingProgress(), required=("val",))
        return Data(_checked(named, spec, weights))
    else:
        missing = f"{weights} lies in no run folder, and no data was named"
    log.info(f"note: {missing}; checking on drawings instead, which says nothing of accuracy")
    return Data(open_dataset(SAMPLE, progress=ReadingProgress()), missing)


def checking_sample(data: Data, spec: ModelSpec, limit: int | None = None) -> Sample:
    """The validation pictures, or a stratified part of them.

    Args:
        data: From `find_data`.
        spec: Of the model.
        limit: At most this many; `None` takes all.
    """
    pictures, truth, items = pixels(data.dataset, "val", spec.resize, ReadingProgress())
    files = tuple(item.file for item in items)
    if limit is not None and limit < len(truth):
        places = stratified(truth, limit)
        pictures, truth = pictures[places], truth[places]
        files = tuple(files[place] for place in places)
    return Sample(
        pictures=pictures,
        truth=None if data.missing else truth,
        files=files,
        source=f"{len(files):,} validation pictures of {data.name}",
    )


def calibration_pictures(data: Data, spec: ModelSpec, count: int) -> Pictures:
    """A stratified part of the training pictures.

    Args:
        data: From `find_data`.
        spec: Of the model.
        count: How many.

    Returns:
        `uint8 [N,S,S,3]`, BGR.

    Raises:
        DataError: The model's data is not here, or has too few pictures or not every class.
    """
    if data.missing:
        raise DataError(
            f"{data.missing}; static quantization measures activations on training pictures: "
            "name them with --data"
        )
    pictures, truth, _ = pixels(data.dataset, "train", spec.resize, ReadingProgress())
    places = stratified(truth, count)
    check_pictures(truth[places], spec.labels, data.dataset.source)
    return pictures[places]


def _checked(dataset: Dataset, spec: ModelSpec, weights: Path) -> Dataset:
    check_labels(spec, dataset.labels, weights, dataset.source)
    return dataset
