"""Decode the images of a source on all processors, into its cache."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from catdog_edge.errors import DamagedError, PictureError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import ResizeStep
from catdog_edge.training.data.dataset import SPLITS, Candidate, Decoded, Item, Split, changed
from catdog_edge.training.data.pixel_cache import Cache, PixelWriter
from catdog_edge.training.data.splits import Splitter
from catdog_edge.training.data.storage import Skipped, Source

Progress = Callable[[int, int], None]
"""Called with the number of decoded images and their total."""

CHUNK = 32
"""Images that are submitted together; two chunks are in memory at a time."""


class Decoder:
    """Decodes the images of a source.

    Args:
        source: Where they are.
        cache: Where digests and resized images are kept.
        progress: Called now and then.
        keep_damaged: Take images that the decoder reports as damaged.
    """

    def __init__(
        self,
        source: Source,
        cache: Cache,
        progress: Progress | None = None,
        keep_damaged: bool = False,
    ) -> None:
        self._source, self._cache, self._progress = source, cache, progress
        self._keep_damaged = keep_damaged

    def read(self, candidates: Sequence[Candidate]) -> list[Decoded]:
        """Digests of the candidates; only files that are new or changed are decoded."""
        new = [one for one in candidates if self._cache.known(one.file) is None]
        for one in self._decode(new, None):
            self._learn(one)
        return [self._known(candidate) for candidate in candidates]

    def read_and_keep(
        self, candidates: Sequence[Candidate], steps: Sequence[ResizeStep], splitter: Splitter
    ) -> list[Decoded]:
        """Digests of the candidates, and in the same pass the cache of `pixels`.

        Most of them being known, this is `read`: the cache is made when it is needed.
        """
        new = sum(self._cache.known(one.file) is None for one in candidates)
        if 2 * new <= len(candidates):
            return self.read(candidates)
        self._cache.make_room(len(candidates), steps)
        with contextlib.ExitStack() as stack:
            writers = self._writers(stack)
            found = []
            for one in self._decode(sorted(candidates, key=lambda one: one.file), steps):
                self._learn(one)
                if one.image is not None:
                    split = splitter.by_digest(one.candidate, one.digest)
                    writers[split].add(one.candidate.file, one.image)
                    found.append(replace(one, image=None))
            splits = splitter.assign(found)
            if splitter.moved:
                split_of = {one.candidate.file: split for one, split in zip(found, splits)}
                images = heapq.merge(*(w.rows() for w in writers.values()), key=lambda row: row[0])
                writers = self._writers(stack)
                for file, image in images:
                    writers[split_of[file]].add(file, image)
            for writer in writers.values():
                if writer.files:
                    writer.keep(steps)
        return [self._known(candidate) for candidate in candidates]

    def _writers(self, stack: contextlib.ExitStack) -> dict[Split, PixelWriter]:
        writers = {split: PixelWriter(self._cache) for split in SPLITS}
        for writer in writers.values():
            stack.callback(writer.discard)
        return writers

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

    def _learn(self, one: Decoded) -> None:
        self._cache.learn(one.candidate.file, one.digest, one.reason, one.damaged)

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
        complaint = ""
        try:
            try:
                frame = self._source.frame(candidate.file)
            except DamagedError as error:
                complaint = str(error)
                if not self._keep_damaged:
                    return Decoded(candidate, reason=complaint, damaged=True)
                frame = self._source.frame(candidate.file, keep_damaged=True)
        except PictureError as error:
            return Decoded(candidate, reason=str(error))
        small = None if steps is None else np.ascontiguousarray(preprocess(frame, steps))
        digest = self._source.digest(candidate.file, frame)
        return Decoded(candidate, digest, complaint, bool(complaint), small)


def unreadable(read: Sequence[Decoded]) -> list[Skipped]:
    """The files that cannot be read."""
    return [Skipped(one.candidate.file, one.reason) for one in read if not one.digest]
