"""One pass over the files of a source: digests, reasons, and resized pictures for the cache.

Knows that decoding is what costs time, and does it on all processors, once. Knows nothing of
what a label means.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import ResizeStep
from catdog_edge.training.data.dataset import SPLITS, Candidate, Layout, Split
from catdog_edge.training.data.pixel_cache import Cache, PixelWriter
from catdog_edge.training.data.sources import Skipped, Source
from catdog_edge.training.data.splits import Assign

Progress = Callable[[int, int], None]
"""Called with how many pictures are decoded, and of how many."""

Decoded = tuple[str, str, npt.NDArray[np.uint8] | None]
"""Digest and reason (one of them empty), and the resized picture where one was asked for."""


def _decode_one(source: Source, file: str, steps: Sequence[ResizeStep] | None) -> Decoded:
    try:
        frame = source.frame(file)
    except PictureError as error:
        return "", str(error), None
    small = None if steps is None else np.ascontiguousarray(preprocess(frame, steps))
    return source.digest(file, frame), "", small


def decoded(
    source: Source,
    files: Sequence[str],
    steps: Sequence[ResizeStep] | None,
    progress: Progress | None,
) -> Iterator[Decoded]:
    """Decode files on all processors, in order, with few of them in memory at a time."""
    # OpenCV and hashlib release the interpreter's lock, so threads are enough.
    workers = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    waiting: list[Future[Decoded]] = []
    done = 0
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(files), 32):
            chunk = [
                pool.submit(_decode_one, source, file, steps) for file in files[start : start + 32]
            ]
            for future in waiting:
                yield future.result()
            done += len(waiting)
            if progress is not None and waiting:
                progress(done, len(files))
            waiting = chunk
        for future in waiting:
            yield future.result()
        if progress is not None:
            progress(len(files), len(files))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Reading:
    """One pass over the files: digests, reasons, and the cache of pixels where it can be."""

    def __init__(
        self,
        source: Source,
        cache: Cache,
        assign: Assign,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._cache = cache
        self._assign = assign
        self._progress = progress
        self.found: list[tuple[Candidate, str]] = []
        self.skipped: list[Skipped] = []

    def read(
        self, candidates: Sequence[Candidate], steps: Sequence[ResizeStep] | None = None
    ) -> None:
        """Learn the digests of all candidates, resizing on the way where all are new."""
        new = [c.file for c in candidates if self._cache.known(c.file) is None]
        # Where most of it has to be decoded anyway, all of it is: one pass instead of two.
        if steps is not None and 2 * len(new) > len(candidates):
            self._read_and_keep(candidates, steps)
        else:
            progress = self._progress if new else None
            for file, (digest, reason, _) in zip(
                new, decoded(self._source, new, None, progress), strict=True
            ):
                self._cache.learn(file, digest, reason)
        for candidate in candidates:
            digest, reason = self._cache.known(candidate.file) or ("", "changed while it was read")
            if digest:
                self.found.append((candidate, digest))
            else:
                self.skipped.append(Skipped(candidate.file, reason))

    def _read_and_keep(self, candidates: Sequence[Candidate], steps: Sequence[ResizeStep]) -> None:
        self._cache.check_room(len(candidates), steps)
        self._cache.forget_unused()
        ordered = sorted(candidates, key=lambda candidate: candidate.file)
        writers = {split: PixelWriter(self._cache) for split in SPLITS}
        files: dict[Split, list[str]] = defaultdict(list)
        try:
            names = [candidate.file for candidate in ordered]
            for candidate, (digest, reason, picture) in zip(
                ordered, decoded(self._source, names, steps, self._progress), strict=True
            ):
                self._cache.learn(candidate.file, digest, reason)
                if picture is not None:
                    split = self._assign(candidate, digest)
                    writers[split].add(picture)
                    files[split].append(candidate.file)
            for split, writer in writers.items():
                if files[split]:
                    writer.keep(files[split], steps)
        finally:
            for writer in writers.values():
                writer.discard()

    def read_some(self, layout: Layout, limit: int, seed: int, shares: Sequence[float]) -> None:
        """Take a stratified subset, decoding hardly more than it needs.

        Files come in the order of a hash of their names, so neither their order nor the
        machine matters; each is taken while its class and split has room.
        """
        if limit < 1:
            raise DataError(f"--limit must be at least 1, got {limit}")
        ordered = sorted(
            layout.candidates,
            key=lambda c: hashlib.sha256(
                f"{seed}\0{c.file}".encode("utf-8", "surrogateescape")
            ).digest(),
        )
        each = limit // len(layout.labels)
        size = {s: max(1, round(each * share)) for s, share in zip(SPLITS, shares) if share > 0}
        # What rounding has added comes off the largest split, so that limit is not exceeded.
        largest = max(size, key=lambda split: size[split])
        size[largest] = max(1, size[largest] - max(0, sum(size.values()) - each))
        room = {(label, split): count for label in layout.labels for split, count in size.items()}
        progress, self._progress = self._progress, None
        taken: list[tuple[Candidate, str]] = []
        wanted = sum(room.values())
        for start in range(0, len(ordered), 64):
            self.found = []
            self.read(ordered[start : start + 64])
            for candidate, digest in self.found:
                place = (candidate.label, self._assign(candidate, digest))
                if room.get(place, 0) > 0:
                    room[place] -= 1
                    taken.append((candidate, digest))
            if not any(room.values()):
                break
            if progress is not None:
                progress(len(taken), wanted)
        if progress is not None:
            progress(len(taken), len(taken))
        self.found, self._progress = taken, progress
