"""Classify parts on a Ray cluster: Ray Data schedules them, and reschedules those of lost workers.

A part that is done twice replaces its own file, so partial work of a lost node does no harm.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from catdog_edge.bulk.classify_parts import ImageOptions, PartClassifier
from catdog_edge.bulk.parts import Part
from catdog_edge.bulk.results import Results, Row
from catdog_edge.bulk.storage import is_remote
from catdog_edge.errors import CatdogError, first_line
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.providers.start import GPU
from catdog_edge.system.packages import import_extra


class PartWorker:
    """A session on a worker; Ray calls it with one part at a time."""

    def __init__(
        self, results: Results, images: ImageOptions, threads: int, model: dict[str, Any]
    ) -> None:
        self._results = results
        folder = str(results.settings["folder"])
        try:  # relative paths refer to the folder of the command
            os.chdir(folder)
        except OSError as error:
            if not is_remote(results.folder.location):
                raise CatdogError(
                    f"a worker does not see {folder}; share it, or use s3://"
                ) from error
        classifier = Classifier(threads=1, **model)
        self._classify = PartClassifier(classifier, threads, images)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Classify the part of one row and write its results."""
        part = Part.from_json(row["part"])
        rows = list(self._classify(part))
        self._results.write(part, rows)
        bad = [row for row in rows if "error" in row]
        return {"images": len(rows), "unreadable": json.dumps(bad)}


def portable(model: Any) -> str | bytes | None:
    """Return what a worker opens: the name of a shipped model, else the bytes of the model.

    A name takes the form for the worker's provider: that of the CPU is slow on a GPU.
    """
    file = find_model(model)
    return file.shipped or (file.path.read_bytes() if file.path else file.data)


def classify_all_on_ray(
    results: Results,
    images: ImageOptions,
    model: dict[str, Any],
    threads: int | None,
    address: str | None,
    progress: Callable[[int], object],
    unreadable: Callable[[Row], object],
) -> None:
    """Classify the parts without results on a cluster; see `classify_remaining`.

    Each node must have access to the `results`. `model` are `model`, `provider` and `reject` of
    `Classifier`; see `portable`. `threads` are the cores per worker, by default those
    of the smallest node. `address` is the cluster's, or `auto`; `None` starts Ray on this machine.
    Raises `CatdogError` if the cluster or a worker fails permanently.
    """
    ray = import_extra("ray", "ray", "--engine ray needs the package ray")
    import_extra("ray.data", "ray", "--engine ray needs the package ray")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised
    model = model | {"model": portable(model["model"])}
    left, done = [], 0
    for part in results.parts():
        if results.file(part) in results.done:
            done += len(part.items)
        else:
            left.append({"part": part.to_json()})
    progress(done)
    # Ray prints messages about lost nodes on standard output, which is for results.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            threads = threads or min(int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1)
            gpu = model["provider"] in ("auto", *GPU) and any(node.get("GPU") for node in nodes)
            ray.data.DataContext.get_current().enable_progress_bars = False
            workers = ray.data.from_items(left, override_num_blocks=len(left)).map(
                PartWorker,
                fn_constructor_args=(results, images, threads, model),
                compute=ray.data.ActorPoolStrategy(min_size=1),
                num_cpus=threads,
                num_gpus=1 if gpu else None,
            )
            for row in workers.iter_rows():
                done += row["images"]
                progress(done)
                for bad in json.loads(row["unreadable"]):
                    unreadable(bad)
    except (ray.exceptions.RayError, ConnectionError, ValueError) as error:
        # The message has the traceback of the worker.
        known = re.findall(r"catdog_edge\.errors\.\w+: (.+)", str(error))
        raise CatdogError(known[-1] if known else f"Ray: {first_line(error, 300)}") from error
