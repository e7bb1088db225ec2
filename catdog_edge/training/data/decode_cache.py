"""Decode the images of a source on all processors, once: results are cached between runs.

One folder per source below `system.files.cache_folder()`; it may be deleted at any time.
`index.json` has the digest of each file's pixels, or why it cannot be read, valid while size and
stamp of the file are the same. `pixels-KEY.u8` has resized images one after the other; KEY is a
digest of the files' names, sizes and stamps, of the resize steps and of the decoder.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock

from catdog_edge.errors import CatdogError, DamagedError, DataError, PictureError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import ResizeStep
from catdog_edge.system.console import progress_bar
from catdog_edge.system.files import cache_folder, write_text
from catdog_edge.training.array_types import Pixels
from catdog_edge.training.data.dataset import SPLITS, Candidate, Decoded, Item, Split, changed
from catdog_edge.training.data.folder_or_zip import Source
from catdog_edge.training.data.splits import Splitter

FORMAT = 4  # incremented when images are read, resized or stored in another way
UNUSED_DAYS = 14  # days after which pixels that no run opens are removed, when others are written
CHUNK = 32  # images that are submitted together; two chunks are in memory at a time
Steps = Sequence[ResizeStep]


class Cache:
    """The cache of one source."""

    def __init__(self, source: Source, keep_damaged: bool = False) -> None:
        name = re.sub(r"[^\w.-]", "_", Path(source.name).name)[:40]
        digest = hashlib.sha256(os.fsencode(source.name)).hexdigest()[:12]
        self.folder = cache_folder() / f"{name}-{digest}"
        self._source, self._keep_damaged = source, keep_damaged
        self._decoder = f"{FORMAT} opencv {cv2.__version__}"
        self._changed = False

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other process decodes this source; then read its index."""
        with contextlib.ExitStack() as stack:
            with _writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.folder / "lock"))
            # Nobody else writes now, so these are what a killed process has left.
            for path in self.folder.glob(".pixels-*.tmp"):
                path.unlink(missing_ok=True)
            self.__dict__.pop("_index", None)
            yield

    @cached_property
    def _index(self) -> dict[str, dict[str, Any]]:
        try:
            index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            # What one build of OpenCV could not read, another can.
            if index["decoder"] == self._decoder and isinstance(index["files"], dict):
                return {"files": index["files"], "moved": dict(index["moved"])}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or damaged: start from scratch
        return {"files": {}, "moved": {}}

    def known(self, file: str) -> tuple[str, str] | None:
        """Return digest and reason (one of them empty), or `None` if the file must be decoded."""
        entry, line = self._source.entries[file], self._index["files"].get(file)
        if not isinstance(line, list) or line[:2] != [entry.size, entry.stamp] or len(line) != 5:
            return None
        digest, reason, damaged = line[2:]
        if damaged and self._keep_damaged:
            return (digest, "") if digest else None
        return ("", reason) if damaged else (digest, reason)

    def learn(self, one: Decoded) -> None:
        """Store the digest of a file's pixels, why it cannot be read, or both if damaged."""
        entry, file = self._source.entries[one.candidate.file], one.candidate.file
        line = [entry.size, entry.stamp, one.digest, one.reason, one.damaged]
        self._index["files"][file] = line
        self._changed = True

    def digests(self) -> set[str]:
        """Return the digests of all known files."""
        return {line[2] for line in self._index["files"].values()}

    def exchange_moved(self, key: str, moved: Mapping[str, str]) -> dict[str, str] | None:
        """Store `Splitter.moved`; return the stored value, `None` the first time."""
        before: dict[str, str] | None = self._index["moved"].get(key)
        if before != moved:
            self._index["moved"][key] = dict(moved)
            self._changed = True
        return before

    def save(self) -> None:
        """Write the index, if it has changed."""
        if self._changed:
            # ASCII keeps names that are not valid UTF-8 (lone surrogates).
            text = json.dumps({"decoder": self._decoder, **self._index}, ensure_ascii=True)
            with _writing(self.folder):
                write_text(self.folder / "index.json", text)

    def pixel_file(self, files: Sequence[str], steps: Steps) -> Path:
        """Return the path of the resized images of these files, in this order."""
        entries = self._source.entries
        content = [self._decoder, repr(tuple(steps))]
        content += [f"{file}\0{entries[file].size}\0{entries[file].stamp}" for file in files]
        key = hashlib.sha256("\n".join(content).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / f"pixels-{key[:24]}.u8"

    def open_pixels(self, files: Sequence[str], steps: Steps) -> Pixels | None:
        """Open the resized images of these files if cached, memory-mapped read-only."""
        path = self.pixel_file(files, steps)
        shape = (len(files), steps[-1].height, steps[-1].width, 3)
        try:
            if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
                return None
            with contextlib.suppress(OSError):
                os.utime(path)  # the clock of UNUSED_DAYS
            return np.memmap(path, np.uint8, "r", shape=shape)
        except OSError:
            return None

    def make_room(self, count: int, steps: Steps) -> None:
        """Remove pixels that no run needs; raise `DataError` without room for `count` images."""
        need = count * steps[-1].height * steps[-1].width * 3
        oldest = time.time() - UNUSED_DAYS * 86400
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("*pixels-*"):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
            free = shutil.disk_usage(self.folder).free
        if free < need:
            raise DataError(
                f"the cache {self.folder} needs {need / 1e9:,.1f} GB, the disk has "
                f"{free / 1e9:,.1f} GB; free some disk space, set CATDOG_CACHE to another "
                "folder, or take fewer images with --limit"
            )


class PixelWriter:
    """Writes resized images one after the other into a file that gets its name at the end."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.files: list[str] = []
        self._shape: tuple[int, ...] = ()
        with _writing(cache.folder):
            cache.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".pixels-", suffix=".tmp", dir=cache.folder)
        self._path, self._stream = Path(name), os.fdopen(descriptor, "wb", buffering=2**20)

    def add(self, file: str, image: Pixels) -> None:
        """Append the resized image of a file, `uint8 [S,S,3]`."""
        self.files.append(file)
        self._shape = image.shape
        # On a full disk an error, where a store into a memory map would kill the process.
        with _writing(self._cache.folder):
            self._stream.write(image.tobytes())

    def rows(self) -> Iterator[tuple[str, Pixels]]:
        """Yield the files and images written so far, memory-mapped."""
        if self.files:
            self._stream.flush()
            shape = (len(self.files), *self._shape)
            yield from zip(self.files, np.memmap(self._path, np.uint8, "r", shape=shape))

    def keep(self, steps: Steps) -> None:
        """Give the file its name."""
        with _writing(self._cache.folder):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.chmod(0o644)
            self._path.replace(self._cache.pixel_file(self.files, steps))

    def close(self) -> None:
        """Remove the file unless `keep` was called."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._path.unlink(missing_ok=True)


class Decoder:
    """Decodes the images of a source into its cache, damaged ones if `keep_damaged`.

    `bar` names the progress bar; empty: none is shown.
    """

    def __init__(
        self, source: Source, cache: Cache, keep_damaged: bool, bar: str = "reading images"
    ) -> None:
        self._source, self._cache, self._bar = source, cache, bar
        self._keep_damaged = keep_damaged

    def read(self, candidates: Sequence[Candidate]) -> list[Decoded]:
        """Return the digests of the candidates; decodes only new or changed files."""
        new = [one for one in candidates if self._cache.known(one.file) is None]
        for one in self._decode(new, None):
            self._cache.learn(one)
        return [self._known(candidate) for candidate in candidates]

    def read_and_keep(
        self, candidates: Sequence[Candidate], steps: Steps | None, splitter: Splitter
    ) -> list[Decoded]:
        """Return the digests of the candidates and, given `steps`, fill the cache of `pixels`.

        If most of them are known, this is `read`: the cache is filled when needed.
        """
        new = sum(self._cache.known(one.file) is None for one in candidates)
        if steps is None or 2 * new <= len(candidates):
            return self.read(candidates)
        self._cache.make_room(len(candidates), steps)
        with contextlib.ExitStack() as stack:
            writers = self._writers(stack)
            found = []
            for one in self._decode(sorted(candidates, key=lambda one: one.file), steps):
                self._cache.learn(one)
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
        writing = (contextlib.closing(PixelWriter(self._cache)) for _ in SPLITS)
        return dict(zip(SPLITS, map(stack.enter_context, writing)))

    def write_pixels(self, items: Sequence[Item], steps: Steps) -> None:
        """Write the resized images of some items into the cache; `DataError` for changed ones."""
        self._cache.make_room(len(items), steps)
        candidates = [Candidate(item.file, "") for item in items]
        with contextlib.closing(PixelWriter(self._cache)) as writer:
            for one, item in zip(self._decode(candidates, steps), items):
                if one.image is None or one.digest != item.digest:
                    reason = one.reason or "other pixels than before"
                    raise changed(self._source.name, item.file, reason)
                writer.add(item.file, one.image)
            writer.keep(steps)

    def _known(self, candidate: Candidate) -> Decoded:
        digest, reason = self._cache.known(candidate.file) or ("", "changed while it was read")
        return Decoded(candidate, digest, reason)

    def _decode(self, candidates: Sequence[Candidate], steps: Steps | None) -> Iterator[Decoded]:
        """Decode in order. OpenCV and hashlib release the interpreter lock: threads suffice."""
        workers = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
        count = progress_bar(self._bar, len(candidates))
        with ThreadPoolExecutor(workers) as pool:
            waiting: Iterator[Decoded] = iter(())
            for start in range(0, len(candidates) + CHUNK, CHUNK):
                chunk = candidates[start : start + CHUNK]
                submitted = pool.map(self._decode_one, chunk, itertools.repeat(steps))
                yield from waiting
                count(min(start, len(candidates)))
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


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an error of the file system into one that names the cache."""
    try:
        yield
    except (OSError, CatdogError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"cannot write the cache {folder}: {getattr(cause, 'strerror', None) or cause}; free "
            "some disk space, or set CATDOG_CACHE to another folder"
        ) from error
