"""Batches that are made on a device, of the images that `BatchLoader` would take.

The thread that works ahead draws what is done to each image; the device does it, batch by batch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from catdog_edge.errors import CatdogError
from catdog_edge.training.array_types import Labels, Pixels
from catdog_edge.training.data.negatives import Choice, draw_empty_scene
from catdog_edge.training.engine.batches import gpu_augment
from catdog_edge.training.engine.batches.augment import Share, draw_changes
from catdog_edge.training.engine.batches.loader import Batch, BatchLoader
from catdog_edge.training.engine.device import Upload, pinned

log = logging.getLogger(__name__)

VARIABLE = "CATDOG_EDGE_AUGMENT"  # `cpu` or `device`: where images are augmented
MEMORY_SHARE = 0.4  # of a device's free memory; a larger array is uploaded batch by batch
CHUNK = 2**28  # bytes of an array that are uploaded at once
DRAWINGS = 512  # drawn negatives that a run keeps on the device


def augments_on(device: torch.device) -> bool:
    """Check whether a device makes its batches: a GPU, or as `$CATDOG_EDGE_AUGMENT` says.

    Raises:
        CatdogError: The variable is neither `cpu` nor `device`.
    """
    where = os.environ.get(VARIABLE, "").strip().lower()
    if where not in ("", "cpu", "device"):
        raise CatdogError(f"{VARIABLE}={where}: give cpu or device, or unset it")
    return where == "device" or (not where and device.type == "cuda")


def resident(sets: Sequence[Pixels], device: torch.device) -> torch.Tensor | None:
    """Copy sets of images `uint8 [N,H,W,3]`, one after another, to a device.

    Returns `None` if its free memory is too small.
    """
    count, size = sum(map(len, sets)), sum(one.nbytes for one in sets)
    if device.type == "cuda" and size > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    copied = torch.empty((count, *sets[0].shape[1:]), dtype=torch.uint8, device=device)
    rows, end = max(1, CHUNK * count // max(1, size)), 0
    for one in sets:
        for start in range(0, len(one), rows):
            chunk = torch.from_numpy(np.array(one[start : start + rows]))
            copied[end : end + len(chunk)] = chunk
            end += len(chunk)
    return copied


class DeviceImages:
    """Source images of batches: on the device if they fit, else uploaded as needed.

    Their rows are counted over all sets.
    """

    def __init__(self, sets: Sequence[Pixels], device: torch.device) -> None:
        self._sets = sets
        self.starts = np.cumsum([0, *map(len, sets)])
        self._copied = resident(sets, device)
        if self._copied is None:
            size = sum(one.nbytes for one in sets) / 1e9
            log.info(
                f"train: the training images ({size:,.1f} GB) do not fit into the memory of "
                f"{device}, so each batch is uploaded"
            )

    def prepare(self, rows: Labels) -> gpu_augment.Arrays:
        """Return what `take` needs of the host, ahead of it: row numbers, or images."""
        if self._copied is not None:
            return {"rows": rows}
        pixels = np.empty((len(rows), *self._sets[0].shape[1:]), np.uint8)
        for start, one in zip(self.starts, self._sets):
            mine = (rows >= start) & (rows < start + len(one))
            pixels[mine] = one[rows[mine] - start]
        return {"pixels": pixels}

    def take(self, sent: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the images, `uint8 [N,H,W,3]`, on the device."""
        return sent["pixels"] if self._copied is None else self._copied[sent["rows"]]


@dataclass(frozen=True)
class GpuBatchLoader(BatchLoader):
    """A `BatchLoader` whose batches are made on a device.

    Order, sources, negatives, and the changes of each image are those of `BatchLoader`. Drawn
    negatives are some of a set of `DRAWINGS`; noise is a part of one array of noise.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def epoch(
        self, epoch: int, first_step: int = 0, scales: tuple[float, ...] = (1.0,)
    ) -> Generator[Batch, None, None]:
        """See `BatchLoader`; the first time, the images are copied to the device."""
        _ = self._images  # Here, since one thread alone is to use the device.
        return super().epoch(epoch, first_step, scales)

    @cached_property
    def _images(self) -> DeviceImages:
        """Return the images of the classes, the photographs of negatives, and the drawings."""
        sets, sampler = [self.pixels], self.negatives
        if sampler is not None:
            sets.append(sampler.photographs)
            if sampler.drawn or not len(sampler.photographs):
                sets.append(self._draw())
        return DeviceImages(sets, self.device)

    def _draw(self) -> Pixels:
        height, width = self.pixels.shape[1:3]

        def one(number: int) -> Pixels:
            return draw_empty_scene(height, width, self._generator(0, 0, 4, number))

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return np.stack([*threads.map(one, range(DRAWINGS))])

    def _prepare(self, chosen: Labels, epoch: int, step: int, scale: float) -> Callable[[], Batch]:
        share = Share(len(chosen), slice(self.rank, None, self.processes))
        rows = chosen[share.rows]
        labels, shape = self.labels[rows], self.pixels.shape
        draws = draw_changes(self.policy, self._generator(epoch, step), shape, share)
        arrays: gpu_augment.Arrays = {}
        if self.negatives is not None:
            generators = self._negative_generators(share, epoch, step)
            of_batch = Share(len(generators), share.rows)
            more = draw_changes(self.policy, self._generator(epoch, step, 3), shape, of_batch)
            draws = draws.joined(more) if draws is not None and more is not None else None
            mine = generators[share.rows]
            choices = [self.negatives.choose(one) for one in mine]
            rows = np.concatenate([rows, self._rows_of(choices, mine)])
            labels = self._with_negatives(labels, len(mine))
            arrays = gpu_augment.growth(choices, *shape[1:3])
        if draws is not None:
            arrays |= gpu_augment.changes(draws, *shape[1:3])
        upload = Upload(arrays | self._images.prepare(rows), self.device)
        truth = pinned(labels, self.device)

        def complete() -> Batch:
            sent = upload.take()
            images = gpu_augment.change(self._images.take(sent), sent)
            size, pixels = self._scaled_size(images.shape, scale), images
            if scale != self.detail:
                pixels = gpu_augment.resize_tensor(images, *size)
            return Batch(pixels, truth, images)

        return complete

    def _rows_of(self, choices: list[Choice], generators: list[np.random.Generator]) -> Labels:
        """Return the rows of the chosen negatives; a drawing is drawn from its generator."""
        _, photographs, drawings = self._images.starts[:3]
        starts = {"background": 0, "photograph": photographs, "drawn": drawings}
        images = [
            int(one.integers(DRAWINGS)) if choice.kind == "drawn" else choice.image
            for choice, one in zip(choices, generators)
        ]
        return np.array([starts[choice.kind] for choice in choices], np.int64) + images
