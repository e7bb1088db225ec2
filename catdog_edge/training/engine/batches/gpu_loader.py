"""Batches that are made on a device, of the images that `BatchLoader` would take.

The thread that works ahead draws what is done to each image; the device does it, batch by batch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from catdog_edge.errors import CatdogError
from catdog_edge.training.array_types import Labels, Pixels
from catdog_edge.training.data.negatives import draw_empty_scene
from catdog_edge.training.engine.batches import gpu_augment
from catdog_edge.training.engine.batches.augment import Share, draw_changes
from catdog_edge.training.engine.batches.loader import Batch, BatchLoader
from catdog_edge.training.engine.device import pinned

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


def resident(pixels: Pixels, device: torch.device) -> torch.Tensor | None:
    """Copy images `uint8 [N,H,W,3]` to a device; `None` if its free memory is too small."""
    if device.type == "cuda" and pixels.nbytes > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    copied = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    rows = max(1, CHUNK * len(pixels) // max(1, pixels.nbytes))
    for start in range(0, len(pixels), rows):
        copied[start : start + rows] = torch.from_numpy(np.array(pixels[start : start + rows]))
    return copied


class DeviceImages:
    """Source images of batches: on the device if they fit, else uploaded as needed."""

    def __init__(self, pixels: Pixels, device: torch.device, what: str) -> None:
        self._pixels, self._device = pixels, device
        self._copied = resident(pixels, device)
        if self._copied is None:
            log.info(
                f"train: the {what} ({pixels.nbytes / 1e9:,.1f} GB) do not fit into the memory of "
                f"{device}, so each batch is uploaded"
            )

    def prepare(self, rows: Labels) -> torch.Tensor:
        """Return what `take` needs of the host, ahead of it: row numbers, or images."""
        return pinned(rows if self._copied is not None else self._pixels[rows], self._device)

    def take(self, prepared: torch.Tensor) -> torch.Tensor:
        """Return the images, `uint8 [N,H,W,3]`, on the device."""
        sent = prepared.to(self._device, non_blocking=True)
        return sent if self._copied is None else self._copied[sent]


@dataclass(frozen=True)
class GpuBatchLoader(BatchLoader):
    """A `BatchLoader` whose batches are made on a device.

    Order, sources, negatives, and the changes of each image are those of `BatchLoader`. Drawn
    negatives are some of a set of `DRAWINGS`; noise is that of PyTorch.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def epoch(
        self, epoch: int, first_step: int = 0, scales: tuple[float, ...] = (1.0,)
    ) -> Generator[Batch, None, None]:
        """See `BatchLoader`; the first time, the images are copied to the device."""
        # Here, since one thread alone is to use the device.
        sampler, _ = self.negatives, self._images
        if sampler is not None and self._photographs:
            _ = self._drawings if sampler.drawn or not len(sampler.photographs) else None
        return super().epoch(epoch, first_step, scales)

    @cached_property
    def _images(self) -> DeviceImages:
        return DeviceImages(self.pixels, self.device, "training images")

    @cached_property
    def _photographs(self) -> DeviceImages:
        assert self.negatives is not None
        return DeviceImages(self.negatives.photographs, self.device, "negatives")

    @cached_property
    def _drawings(self) -> DeviceImages:
        assert self.negatives is not None
        height, width = self.negatives.photographs.shape[1:3]

        def one(number: int) -> Pixels:
            return draw_empty_scene(height, width, self._generator(0, 0, 4, number))

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            drawn = np.stack([*threads.map(one, range(DRAWINGS))])
        return DeviceImages(drawn, self.device, "drawn negatives")

    def _prepare(self, chosen: Labels, epoch: int, step: int, scale: float) -> Callable[[], Batch]:
        share = Share(len(chosen), slice(self.rank, None, self.processes))
        chosen = chosen[share.rows]
        shape = (len(chosen), *self.pixels.shape[1:])
        draws = draw_changes(self.policy, self._generator(epoch, step), shape, share)
        rows, labels = self._images.prepare(chosen), self.labels[chosen]
        negatives: Callable[[], torch.Tensor] | None = None
        if self.negatives is not None:
            generators = self._negative_generators(share, epoch, step)
            of_batch = Share(len(generators), share.rows)
            more = draw_changes(self.policy, self._generator(epoch, step, 3), shape, of_batch)
            draws = draws.joined(more) if draws is not None and more is not None else None
            mine = generators[share.rows]
            negatives = self._negatives(mine)
            labels = self._with_negatives(labels, len(mine))
        truth = pinned(labels, self.device)

        def complete() -> Batch:
            images = self._images.take(rows)
            if negatives is not None:
                images = torch.cat([images, negatives()])
            images = gpu_augment.augment_tensor(images, draws)
            size, pixels = self._scaled_size(images.shape, scale), images
            if scale != self.detail:
                pixels = gpu_augment.resize_tensor(images, *size)
            return Batch(pixels, truth, images)

        return complete

    def _negatives(self, generators: list[np.random.Generator]) -> Callable[[], torch.Tensor]:
        """Choose negatives, one of each generator; what is returned makes them."""
        assert self.negatives is not None
        chosen = [self.negatives.choose(one) for one in generators]
        sets: list[tuple[torch.Tensor, DeviceImages, torch.Tensor]] = []
        for kind in ("photograph", "background", "drawn"):
            rows = [row for row, one in enumerate(chosen) if one.kind == kind]
            if rows:
                if kind == "drawn":
                    index = [int(generators[row].integers(DRAWINGS)) for row in rows]
                    images = self._drawings
                else:
                    index = [chosen[row].image for row in rows]
                    images = self._photographs if kind == "photograph" else self._images
                places = pinned(np.array(rows), self.device)
                sets.append((places, images, images.prepare(np.array(index))))
        shape = (len(chosen), *self.pixels.shape[1:])

        def make() -> torch.Tensor:
            pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
            for places, images, prepared in sets:
                where = places.to(self.device, non_blocking=True)
                pixels.index_copy_(0, where, images.take(prepared))
            return gpu_augment.grow_tensor(pixels, chosen)

        return make
