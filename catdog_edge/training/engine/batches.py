"""Shuffled, augmented batches, prepared one ahead of the step that uses them.

Knows nothing of networks. What a batch holds depends on seed, epoch and step alone, so a
run that was interrupted anywhere goes on with the very batches it would have had.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.augment import Share, augment

AHEAD = 2
"""Batches in preparation: enough to hide augmentation behind a step, little memory."""


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        pixels: `uint8 [B,h,w,3]`, BGR, at the size that the network sees.
        labels: `int64 [B]`.
        detailed: The same pictures before they were made smaller, `uint8 [B,H,W,3]`, for a
            teacher that sees more.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    detailed: torch.Tensor


def batch_bounds(pictures: int, batch_size: int, processes: int = 1) -> list[int]:
    """Where the batches of an epoch begin, and where the last one ends.

    The last batch holds what is left; where that is less than two pictures for each process
    it joins the batch before it, since batch norm cannot train on one.
    """
    bounds = [*range(0, pictures, batch_size), pictures]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < 2 * processes:
        del bounds[-2]
    return bounds


def steps_per_epoch(pictures: int, batch_size: int, processes: int = 1) -> int:
    """Steps of one epoch."""
    return len(batch_bounds(pictures, batch_size, processes)) - 1


def batches(
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    batch_size: int,
    policy: str,
    seed: int,
    epoch: int,
    first_step: int = 0,
    scales: tuple[float, ...] = (1.0,),
    detail: float = 1.0,
    rank: int = 0,
    processes: int = 1,
    pinned: bool = False,
    others: NegativeSampler | None = None,
) -> Generator[Batch, None, None]:
    """Yield the batches of one epoch from `first_step` on.

    Args:
        pixels: `uint8 [N,H,W,3]`, BGR; may be memory-mapped.
        labels: `int64 [N]`.
        batch_size: Pictures per batch, see `batch_bounds`.
        policy: The augmentation, see `catdog_edge.training.engine.augment`.
        seed: Of the run.
        epoch: Counted from 0.
        first_step: Where an interrupted epoch goes on.
        scales: Each batch draws one of them: its height and width in shares of the network's.
        detail: H and W in shares of the network's height and width.
        rank: Which of the processes this is, from 0 on.
        processes: How many share each batch; what is done to a picture does not depend on it.
        pinned: Put the batch where a CUDA device can fetch it while the processor goes on.
        others: Pictures of none of the classes that join each batch, after its own.

    Yields:
        This process's part of each batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(labels))
    starts = batch_bounds(len(order), batch_size, processes)
    rows = slice(rank, None, processes)

    def prepare(step: int) -> Batch:
        # Sorted, so that a memory-mapped file is read forwards; the order inside a batch
        # does not matter.
        chosen = np.sort(order[starts[step] : starts[step + 1]])
        share = Share(len(chosen), rows)
        chosen = chosen[rows]
        generator = np.random.default_rng([seed, epoch, step])
        changed = augment(np.array(pixels[chosen]), policy, generator, share)
        targets = labels[chosen]
        if others is not None:
            more = _others(others, share.batch, rows, policy, (seed, epoch, step))
            changed = np.concatenate([changed, more])
            targets = np.concatenate([targets, np.full(len(more), others.label, np.int64)])
        scale = scales[np.random.default_rng([seed, epoch, step, 1]).integers(len(scales))]
        detailed = torch.from_numpy(changed)
        ready = torch.from_numpy(_scaled(changed, scale, detail))
        made = Batch(ready, torch.from_numpy(targets), detailed)
        return made._replace(pixels=ready.pin_memory()) if pinned else made

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as worker:
        waiting: list[Future[Batch]] = []
        try:
            for step in range(first_step, len(starts) - 1):
                waiting.append(worker.submit(prepare, step))
                if len(waiting) > AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _others(
    others: NegativeSampler, batch: int, rows: slice, policy: str, place: tuple[int, int, int]
) -> npt.NDArray[np.uint8]:
    """This process's share of the others that join a batch, augmented like the rest."""
    count = max(1, round(others.share * batch))
    drawn = [others.draw(np.random.default_rng([*place, 2, number])) for number in range(count)]
    mine = np.stack(drawn)[rows]
    return augment(mine, policy, np.random.default_rng([*place, 3]), Share(count, rows))


def _scaled(pictures: npt.NDArray[np.uint8], scale: float, detail: float) -> npt.NDArray[np.uint8]:
    """Pictures of `detail` times the network's size to `scale` times that size."""
    if scale == detail:
        return pictures
    return resized(
        pictures, *(max(1, round(round(side / detail) * scale)) for side in pictures.shape[1:3])
    )


def resized(pictures: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """`uint8 [N,H,W,3]` to `uint8 [N,height,width,3]`, by area where that is smaller."""
    method = cv2.INTER_AREA if height < pictures.shape[1] else cv2.INTER_LINEAR
    changed = np.empty((len(pictures), height, width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        cv2.resize(picture, (width, height), dst=changed[index], interpolation=method)
    return changed
