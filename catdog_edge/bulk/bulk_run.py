"""`catdog-edge predict --out`: a run from the list of images to the complete manifest."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catdog_edge.bulk.camera_traps import WRITERS
from catdog_edge.bulk.classify_parts import ImageOptions, PartClassifier, classify_remaining
from catdog_edge.bulk.parts import list_parts
from catdog_edge.bulk.results import Results, Row, RunCounts
from catdog_edge.errors import CatdogError, escaped
from catdog_edge.images.decoder_warnings import write_stderr
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.runtime.model_file import DEFAULT, find_model, read_spec
from catdog_edge.system.console import progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BulkRun:
    """Inputs, settings and destination of a run."""

    out: str  # a local folder or an address
    kind: str  # `jsonl`, `parquet`, or a format of `WRITERS` beside JSON lines
    names: Sequence[str]  # see `list_parts`
    listed: Sequence[str]  # the images that the name `-` stands for
    part: int  # images per part
    images: ImageOptions
    engine: str = "local"  # this process; `ray`: workers on a Ray cluster
    address: str | None = None  # of the cluster, see `classify_all_on_ray`
    info: Callable[[str], object] = log.info  # receives messages for the user
    warn: Callable[[str], object] = log.warning  # receives a line per unreadable image

    def run(
        self, model: str | None, provider: str, threads: int | None, reject: float | None
    ) -> RunCounts:
        """Classify all parts without results; finished parts are skipped.

        Raises:
            CatdogError: There are no images, the model cannot be opened, or the results cannot be
                written or belong to a run with other settings.
        """
        labels = read_spec(model).labels
        results = Results(self.out, self.kind, labels, self._settings(model, reject))
        counts = results.counts or results.start(list_parts(self.names, self.listed, self.part))
        if not counts.images:
            raise CatdogError("there are no images; name files, folders, patterns or archives")
        left = counts.parts - len(results.done)
        self.info(
            f"{counts.images:,} images in {counts.parts:,} parts, {left:,} to do, "
            f"{escaped(model or f'the shipped model {DEFAULT}')}; results in {escaped(self.out)}"
        )
        progress = progress_bar("images", counts.images, write_stderr)
        if left and self.engine == "ray":
            from catdog_edge.bulk.on_ray import classify_all_on_ray

            how = {"model": model, "provider": provider, "reject": reject}
            classify_all_on_ray(
                results, self.images, how, threads, self.address, progress, self._unreadable
            )
        elif left:
            with Classifier(model, provider, threads=1, reject=reject) as classifier:
                classify = PartClassifier(classifier, threads, self.images)
                self.info(f"provider {classifier.provider}, {classify.threads} threads")
                try:
                    classify_remaining(results, classify, progress, self._unreadable)
                except KeyboardInterrupt:
                    self.info("stopped; the same command resumes")
                    raise
        if not results.complete:
            if self.kind in WRITERS:
                name, write = WRITERS[self.kind]
                rows = itertools.chain.from_iterable(map(results.rows, results.parts()))
                results.folder.write(name, write(rows, labels, Path(model or DEFAULT).name))
            counts = results.finish()
        if counts.unreadable:
            self.warn(f"{counts.unreadable:,} of {counts.images:,} could not be read")
        return counts

    def _settings(self, model: str | None, reject: float | None) -> dict[str, Any]:
        """Return the settings that change the images or their results, without the provider."""
        listed = "\n".join(self.listed).encode(errors="surrogateescape")
        return {
            "images": list(self.names),
            "list": hashlib.sha256(listed).hexdigest() if "-" in self.names else None,
            "folder": str(Path.cwd()),
            "model": find_model(model).digest(),
            "reject": reject,
            "format": self.kind,
            "part": self.part,
            **asdict(self.images),
        }

    def _unreadable(self, row: Row) -> None:
        self.warn(f"{escaped(row['file'])}: {row['error']}")
