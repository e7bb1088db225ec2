"""Classify parts: read, decode and classify images in several threads."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from catdog_edge.bulk.parts import Part, Read
from catdog_edge.bulk.results import Results, Row
from catdog_edge.errors import PictureError
from catdog_edge.images.find import why_not_found
from catdog_edge.images.preprocess import Image
from catdog_edge.images.read import decode_picture
from catdog_edge.runtime.classifier import CHUNK, Classifier
from catdog_edge.runtime.providers.start import GPU
from catdog_edge.system.threads import choose_threads

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ImageOptions:
    """Options for reading images: see `catdog-edge predict --help`."""

    keep_damaged: bool = False
    tiles: bool = False
    reduce: bool = False


class PartClassifier:
    """Classifies parts in `threads` threads that share one single-threaded session.

    On the CPU every image is a separate call, as in `predict` without `--out`, and so has the
    same probabilities; on a GPU a call has up to 32. Each thread decodes or classifies one image
    at a time, and no others are in memory.

    Examples:
        >>> with Classifier(threads=1) as pets:
        ...     rows = list(PartClassifier(pets, threads=4)(part))
    """

    def __init__(
        self, classifier: Classifier, threads: int | None = None, images: ImageOptions | None = None
    ) -> None:
        self._classifier, self._images = classifier, images or ImageOptions()
        self._batch = CHUNK if classifier.provider in GPU else 1
        # Twice its size, as the first step of the resize of our models is.
        self._shortest = 2 * max(classifier.spec.size) if self._images.reduce else None
        self.threads = choose_threads(threads).count
        self._pool = ThreadPoolExecutor(self.threads, "catdog-edge-bulk")

    def __call__(self, part: Part) -> Iterator[Row]:
        """Yield a row per image, in order; the row of an unreadable image has an `error`."""
        images = zip(part.names, part.items, part.readers(), strict=True)
        batches = iter(lambda: list(itertools.islice(images, self._batch)), [])
        for rows in _in_parallel(self._pool, self._classify, batches, 2 * self.threads):
            yield from rows

    def _classify(self, batch: list[tuple[str, object, Read]]) -> list[Row]:
        rows: list[Row] = []

        def frames() -> Iterator[Image]:
            for name, item, read in batch:
                try:
                    frame = decode_picture(
                        read(), keep_damaged=self._images.keep_damaged, shortest=self._shortest
                    )
                except PictureError as error:
                    reason = why_not_found(Path(item)) if isinstance(item, str) else None
                    rows.append({"file": name, "error": reason or str(error)})
                else:
                    rows.append({"file": name})
                    yield frame

        if self._images.tiles:
            predictions = [self._classifier.search(frame) for frame in frames()]
        else:  # takes one frame after the other, and keeps them in the model's size
            predictions = self._classifier.batch(frames())
        readable = (row for row in rows if "error" not in row)
        for row, prediction in zip(readable, predictions, strict=True):
            row |= json.loads(prediction.to_json())
        return rows


def classify_remaining(
    results: Results,
    classify: PartClassifier,
    progress: Callable[[int], object],
    unreadable: Callable[[Row], object],
) -> None:
    """Classify the parts without results in sequence, and write each.

    `progress` is called with the number of finished images, including earlier runs;
    `unreadable` is called once with the row of each unreadable image.
    """
    done = sum(len(part.items) for part in results.parts() if results.file(part) in results.done)
    progress(done)
    for part in results.parts():
        if results.file(part) in results.done:
            continue
        rows: list[Row] = []
        for row in classify(part):
            rows.append(row)
            progress(done + len(rows))
        results.write(part, rows)
        done += len(rows)
        for row in rows:
            if "error" in row:
                unreadable(row)


def _in_parallel(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    most: int,
) -> Iterator[_Result]:
    """Map in order, with at most `most` pending items or results."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
