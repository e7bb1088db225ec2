"""Decode the images of a source on all processors, into its cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import PictureError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import ResizeStep
from catdog_edge.training.data.dataset import SPLITS, Candidate, Item, Split, changed
from catdog_edge.training.data.pixel_cache import Cache, PixelWriter
from catdog_edge.training.data.sources import Skipped, Source

Progress = Callable[[int, int], None]
"""Called with the number of decoded images and their total."""

CHUNK = 32
"""Images that are submitted together; two chunks are in memory at a time."""


@dataclass(frozen=True)
class Decoded:
    """A file of a source.

    Attributes:
        candidate: The file.
        digest: Of its pixels; empty where it cannot be read.
        reason: Why it cannot be read.
        image: The resized image, `uint8 [S,S,3]` BGR, where one was asked for.
    """

    candidate: Candidate
    digest: str = ""
    reason: str = ""
    image: npt.NDArray[np.uint8] | None = None


class Decoder:
    """Decodes the images of a source.

    Args:
        source: Where they are.
        cache: Where digests and resized images are kept.
        progress: Called now and then.
    """

    def __init__(self, source: Source, cache: Cache, progress: Progress | None = None) -> None:
        self._source, self._cache, self._progress = source, cache, progress

    def read(self, candidates: Sequence[Candidate]) -> list[Decoded]:
        """Digests of the candidates; only files that are new or changed are decoded."""
        new = [one for one in candidates if self._cache.known(one.file) is None]
        for one in self._decode(new, None):
            self._cache.learn(one.candidate.file, one.digest, one.reason)
        return [self._known(candidate) for candidate in candidates]

    def read_and_keep(
        self,
        candidates: Sequence[Candidate],
        steps: Sequence[ResizeStep],
        split_of: Callable[[Candidate, str], Split],
    ) -> list[Decoded]:
        """Digests of the candidates, and in the same pass the cache of `pixels`.

        Most of them being known, this is `read`: the cache is made when it is needed.
        """
        new = sum(self._cache.known(one.file) is None for one in candidates)
        if 2 * new <= len(candidates):
            return self.read(candidates)
        self._cache.make_room(len(candidates), steps)
        writers = {split: PixelWriter(self._cache) for split in SPLITS}
        try:
            for one in self._decode(sorted(candidates, key=lambda one: one.file), steps):
                self._cache.learn(one.candidate.file, one.digest, one.reason)
                if one.image is not None:
                    split = split_of(one.candidate, one.digest)
                    writers[split].add(one.candidate.file, one.image)
            for writer in writers.values():
                if writer.files:
                    writer.keep(steps)
        finally:
            for writer in writers.values():
                writer.discard()
        return [self._known(candidate) for candidate in candidates]

    def write_pixels(self, items: Sequence[Item], steps: Sequence[ResizeStep]) -> None:
        """Write the resized images of some items into the cache.

        Raises:
            DataError: An image has changed since the set was opened, or the disk is full.
        """
        self._cache.make_room(len(items), steps)
        writer = PixelWriter(self._cache)
        candidates = [Candidate(item.file, "") for item in items]
        try:
            for item, one in zip(items, self._decode(candidates, steps), strict=True):
                if one.image is None or one.digest != item.digest:
                    reason = one.reason or "other pixels than before"
                    raise changed(self._source.name, item.file, reason)
                writer.add(item.file, one.image)
            writer.keep(steps)
        finally:
            writer.discard()

    def _known(self, candidate: Candidate) -> Decoded:
        digest, reason = self._cache.known(candidate.file) or ("", "changed while it was read")
        return Decoded(candidate, digest, reason)

    def _decode(
        self,
        candidates: Sequence[Candidate],
        steps: Sequence[ResizeStep] | None,
    ) -> Iterator[Decoded]:
        """Decode in order. OpenCV and hashlib release the interpreter lock: threads suffice."""
        workers = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
        pool = ThreadPoolExecutor(workers)
        waiting: list[Future[Decoded]] = []
        done = 0
        try:
            for start in range(0, len(candidates) + CHUNK, CHUNK):
                chunk = candidates[start : start + CHUNK]
                submitted = [pool.submit(self._decode_one, one, steps) for one in chunk]
                for future in waiting:
                    yield future.result()
                done += len(waiting)
                if self._progress is not None and waiting:
                    self._progress(done, len(candidates))
                waiting = submitted
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode_one(self, candidate: Candidate, steps: Sequence[ResizeStep] | None) -> Decoded:
        try:
            frame = self._source.frame(candidate.file)
        except PictureError as error:
            return Decoded(candidate, reason=str(error))
        small = None if steps is None else np.ascontiguousarray(preprocess(frame, steps))
        return Decoded(candidate, self._source.digest(candidate.file, frame), image=small)


def unreadable(read: Sequence[Decoded]) -> list[Skipped]:
    """The files that cannot be read."""
    return [Skipped(one.candidate.file, one.reason) for one in read if not one.digest]
