"""Decode the images of a source on all processors, into its cache."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from catdog_edge.errors import DamagedError, PictureError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import ResizeStep
from catdog_edge.training.data.dataset import SPLITS, Candidate, Decoded, Item, Split, changed
from catdog_edge.training.data.folder_or_zip import Skipped, Source
from catdog_edge.training.data.pixel_cache import Cache, PixelWriter
from catdog_edge.training.data.splits import Splitter

Progress = Callable[[int, int], None]  # called with the number of decoded images and their total
Steps = Sequence[ResizeStep]
CHUNK = 32  # images that are submitted together; two chunks are in memory at a time


class Decoder:
    """Decodes the images of a source into its cache, damaged ones if `keep_damaged`."""

    def __init__(
        self, source: Source, cache: Cache, progress: Progress | None, keep_damaged: bool
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
        self, candidates: Sequence[Candidate], steps: Steps | None, splitter: Splitter
    ) -> list[Decoded]:
        """Digests of the candidates, and in the same pass the cache of `pixels`, given `steps`.

        Most of them being known, this is `read`: the cache is made when it is needed.
        """
        new = sum(self._cache.known(one.file) is None for one in candidates)
        if steps is None or 2 * new <= len(candidates):
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

    def write_pixels(self, items: Sequence[Item], steps: Steps) -> None:
        """Write the resized images of some items into the cache; `DataError` for changed ones."""
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

    def _decode(self, candidates: Sequence[Candidate], steps: Steps | None) -> Iterator[Decoded]:
        """Decode in order. OpenCV and hashlib release the interpreter lock: threads suffice."""
        workers = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
        with ThreadPoolExecutor(workers) as pool:
            waiting: Iterator[Decoded] = iter(())
            for start in range(0, len(candidates) + CHUNK, CHUNK):
                chunk = candidates[start : start + CHUNK]
                submitted = pool.map(self._decode_one, chunk, itertools.repeat(steps))
                yield from waiting
                if self._progress is not None and start:
                    self._progress(min(start, len(candidates)), len(candidates))
                waiting = submitted

    def _decode_one(self, candidate: Candidate, steps: Steps | None) -> Decoded:
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
