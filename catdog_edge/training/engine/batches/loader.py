"""Shuffled, augmented batches, prepared ahead of the step that uses them.

The content of a batch depends on seed, epoch and step alone, so that a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch

from catdog_edge.training.array_types import Float64, Labels, Pixels
from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.batches.augment import Share, augment

PREFETCH = 2  # batches in preparation: enough to hide augmentation behind a step, in little memory


class Batch(NamedTuple):
    """The samples of one step."""

    pixels: torch.Tensor  # `uint8 [B,h,w,3]`, BGR, at the size of this step
    labels: torch.Tensor  # `int64 [B]`, in the host's memory
    detailed: torch.Tensor  # `uint8 [B,H,W,3]`, at the size of the data, for a teacher


def batch_bounds(samples: int, batch_size: int, processes: int = 1) -> list[int]:
    """Return where the batches of an epoch begin, and where the last one ends.

    A last batch of less than two images per process joins the one before it: batch norm cannot
    train on a single image.
    """
    bounds = [*range(0, samples, batch_size), samples]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < 2 * processes:
        del bounds[-2]
    return bounds


@dataclass(frozen=True)
class BatchLoader:
    """Makes the batches of this process.

    Examples:
        >>> loader = BatchLoader(pixels, labels, batch_size=64, policy="default", seed=0)
        >>> for batch in loader.epoch(0):
        ...     train_step(batch.pixels, batch.labels)
    """

    pixels: Pixels  # `uint8 [N,H,W,3]`, BGR; may be memory-mapped
    labels: Labels  # `int64 [N]`
    batch_size: int  # over all processes, see `batch_bounds`
    policy: str  # see `augment`
    seed: int  # of the run
    detail: float = 1.0  # H and W in shares of the network's height and width
    rank: int = 0  # of this process
    processes: int = 1  # that share each batch; what is done to an image does not depend on it
    pin_memory: bool = False  # for copies to a CUDA device in the background
    negatives: NegativeSampler | None = None  # sampled into each batch, after its own images
    shares: Float64 | None = None  # how often each image is drawn, sum 1; `None`: once an epoch

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(batch_bounds(len(self.labels), self.batch_size, self.processes)) - 1

    def epoch(
        self, epoch: int, first_step: int = 0, scales: tuple[float, ...] = (1.0,)
    ) -> Generator[Batch, None, None]:
        """Yield the batches of one epoch, counted from 0; an interrupted one from its first step.

        Each batch draws one of the scales: its height and width in shares of the network's.
        """
        order = self._order(np.random.default_rng([self.seed, epoch]))
        bounds = batch_bounds(len(order), self.batch_size, self.processes)

        def prepare(step: int) -> Callable[[], Batch]:
            scale = scales[self._generator(epoch, step, 1).integers(len(scales))]
            # Sorted, so that a memory-mapped file is read forwards.
            return self._prepare(
                np.sort(order[bounds[step] : bounds[step + 1]]), epoch, step, scale
            )

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as worker:
            pending: list[Future[Callable[[], Batch]]] = []
            try:
                for step in range(first_step, len(bounds) - 1):
                    pending.append(worker.submit(prepare, step))
                    if len(pending) > PREFETCH:
                        yield pending.pop(0).result()()
                while pending:
                    yield pending.pop(0).result()()
            finally:
                for future in pending:
                    future.cancel()

    def _order(self, generator: np.random.Generator) -> Labels:
        """Draw the images of an epoch: as many as there are, by their shares."""
        count = len(self.labels)
        if self.shares is None:
            return generator.permutation(count)
        # Systematic sampling: an image is drawn its expected number of times, rounded up or down.
        places = (np.arange(count) + generator.random()) / count
        by_chance = generator.permutation(count)
        drawn = np.searchsorted(np.cumsum(self.shares[by_chance]), places)
        return generator.permutation(by_chance[np.minimum(drawn, count - 1)])

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *place])

    def _prepare(self, chosen: Labels, epoch: int, step: int, scale: float) -> Callable[[], Batch]:
        """Prepare a batch in the thread that works ahead; what is returned completes it."""
        share = Share(len(chosen), slice(self.rank, None, self.processes))
        chosen = chosen[share.rows]
        generator = self._generator(epoch, step)
        images = augment(np.array(self.pixels[chosen]), self.policy, generator, share)
        labels = self.labels[chosen]
        if self.negatives is not None:
            more = self._sample_negatives(self.negatives, share, epoch, step)
            images = np.concatenate([images, more])
            labels = self._with_negatives(labels, len(more))
        pixels = torch.from_numpy(self._scaled(images, scale))
        batch = Batch(
            pixels.pin_memory() if self.pin_memory else pixels,
            torch.from_numpy(labels),
            torch.from_numpy(images),
        )
        return lambda: batch

    def _with_negatives(self, labels: Labels, count: int) -> Labels:
        assert self.negatives is not None
        return np.concatenate([labels, np.full(count, self.negatives.label, np.int64)])

    def _negative_generators(
        self, share: Share, epoch: int, step: int
    ) -> list[np.random.Generator]:
        """Return a generator for each negative of the whole batch, of all processes."""
        assert self.negatives is not None
        count = max(1, round(self.negatives.share * share.batch))
        return [self._generator(epoch, step, 2, number) for number in range(count)]

    def _sample_negatives(
        self, sampler: NegativeSampler, share: Share, epoch: int, step: int
    ) -> Pixels:
        generators = self._negative_generators(share, epoch, step)
        mine = np.stack([sampler.draw(one) for one in generators])[share.rows]
        generator = self._generator(epoch, step, 3)
        return augment(mine, self.policy, generator, Share(len(generators), share.rows))

    def _scaled(self, images: Pixels, scale: float) -> Pixels:
        """Resize images of `detail` times the network's size to `scale` times that size."""
        if scale == self.detail:
            return images
        height, width = self._scaled_size(images.shape, scale)
        method = cv2.INTER_AREA if height < images.shape[1] else cv2.INTER_LINEAR
        resized = np.empty((len(images), height, width, 3), np.uint8)
        for index, image in enumerate(images):
            cv2.resize(image, (width, height), dst=resized[index], interpolation=method)
        return resized

    def _scaled_size(self, shape: Sequence[int], scale: float) -> tuple[int, int]:
        height, width = (max(1, round(round(side / self.detail) * scale)) for side in shape[1:3])
        return height, width
