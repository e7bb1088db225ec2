"""Images per second of training: this tool against a plain loop, in one interleaved run.

    python -m benchmarks.studies.train_throughput [--data PATH] [--arch simple_cnn]
                                          [--batch-size 20] [--seconds 60] [--json FILE]

Both train the same network from the same weights with Adam, the same batch size, augmentation and
number of threads; see `training_loops` for the differences. Blocks of steps are interleaved.
Prints a table; `--json` keeps the figures; with `--min-ratio` the exit code is 3 below it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import cv2

from benchmarks.measure.environment import ActivityMonitor, Environment, noise_reasons
from benchmarks.measure.interleaved import PAUSE, Measurement, measure
from benchmarks.report.tables import card
from benchmarks.report.text import milliseconds, plain_table, wrap
from benchmarks.studies import command_line
from benchmarks.studies.training_loops import LOOPS, Loop, LoopConfig
from catdog_edge.errors import CatdogError, DataError, GateError
from catdog_edge.runtime.threads import choose_threads
from catdog_edge.spec import squash
from catdog_edge.system.files import cannot_write, write_text
from catdog_edge.training.config.recipes import Policy
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.data.storage import Source, open_source
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.runs.progress import ReadingProgress

OURS, PLAIN = LOOPS

FIRST = 2
"""Steps before the measurement: PyTorch imports parts of itself in the first one."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Raises:
        CatdogError: The data or an option is not valid, or a loop failed.
    """
    arch = architecture(options.arch)
    steps = squash(arch.size, arch.size)
    if options.batch_size < 2:
        raise CatdogError(f"--batch-size must be at least 2, got {options.batch_size}")
    threads = choose_threads(options.threads)
    dataset = open_dataset(
        options.data, limit=options.limit, steps=steps, progress=ReadingProgress()
    )
    _, truth, items = pixels(dataset, "train", steps, progress=ReadingProgress())
    pixels(dataset, "val", steps)
    count = len(items) // options.batch_size * options.batch_size
    if not count:
        raise DataError(
            f"{dataset.source}: {len(items):,} training pictures make no batch of "
            f"{options.batch_size:,}; raise --limit or lower --batch-size"
        )
    environment = Environment.detect(threads)
    # Until the loops have ended: only then their processor time counts as this process's own.
    monitor = ActivityMonitor()
    with tempfile.TemporaryDirectory(prefix="train-throughput-") as scratch, ExitStack() as stack:
        config = LoopConfig(
            source=dataset.source,
            limit=options.limit,
            arch=arch.name,
            batch_size=options.batch_size,
            policy=options.augment,
            threads=threads.count,
            files=write_jpegs(dataset, items[:count], Path(scratch)),
            labels=tuple(int(label) for label in truth[:count]),
            classes=len(dataset.labels),
            scratch=scratch,
        )
        loops = [stack.enter_context(closing(Loop(name, config))) for name in LOOPS]
        for loop in loops * FIRST:
            loop.step()
        found = measure(
            {loop.name: loop.step for loop in loops},
            options.seconds,
            references={PLAIN: OURS, OURS: OURS},
        )
    activity = monitor.stop()
    ratio = found.ratios[PLAIN]
    return {
        "kind": "catdog-edge train throughput",
        "schema": 1,
        "settings": {
            "data": "sample" if dataset.is_sample else Path(dataset.source).name,
            "pictures": count,
            "arch": arch.name,
            "size": arch.size,
            "batch_size": options.batch_size,
            "augment": options.augment,
            "threads": threads.count,
            "seconds": options.seconds,
            "rounds": found.timing.rounds,
            "pause_ms": 1e3 * PAUSE,
        },
        "ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
        "rows": [_row(loop, found, options.batch_size) for loop in loops],
        "environment": environment.to_dict(),
        "quiet": activity.to_dict(),
        "noise": noise_reasons(environment, activity, found.drifts),
    }


def _row(loop: Loop, found: Measurement, batch_size: int) -> dict[str, Any]:
    summary = found.summaries[loop.name]
    return {
        "name": loop.name,
        **loop.notes,
        "pictures_per_second": batch_size / (summary.p50_ms / 1e3),
        "step": asdict(summary),
        "warm_up": vars(found.warm_ups[loop.name]),
    }


def write_jpegs(dataset: Dataset, items: Sequence[Item], folder: Path) -> tuple[str, ...]:
    """Write images as JPEG files, for the loop that decodes them every epoch.

    JPEG files of the data set are copied; others are encoded at their own size with OpenCV's
    default quality of 95.

    Raises:
        CatdogError: An image has changed, or the disk is full.
    """
    source = None if dataset.is_sample else open_source(dataset.source)
    paths = [folder / f"{number:06}.jpg" for number in range(len(items))]
    for path, item in zip(paths, items, strict=True):
        try:
            path.write_bytes(_jpeg(dataset, source, item))
        except OSError as error:
            raise cannot_write(path, error) from error
    return tuple(str(path) for path in paths)


def _jpeg(dataset: Dataset, source: Source | None, item: Item) -> bytes:
    if source is not None:
        data = source.read(item.file)
        if data.startswith(b"\xff\xd8\xff"):
            return data
    return cv2.imencode(".jpg", dataset.decode(item))[1].tobytes()


def text(document: dict[str, Any]) -> str:
    """Format the document as a table of at most 100 columns."""
    settings, ratio = document["settings"], document["ratio"]
    rows = [
        (
            row["name"],
            row["pictures"],
            row["precision"],
            row["memory"],
            f"{row['pictures_per_second']:,.1f}",
            milliseconds(row["step"]["p50_ms"]),
            milliseconds(row["step"]["p95_ms"]),
            str(row["step"]["calls"]),
        )
        for row in document["rows"]
    ]
    heads = ("loop", "from", "precision", "memory", "pictures/s", "step, ms", "p95, ms", "steps")
    head = (
        f"{settings['arch']} at {settings['size']}x{settings['size']}, Adam, batch "
        f"{settings['batch_size']}, augmentation {settings['augment']}, {settings['pictures']:,} "
        f"pictures of {settings['data']}"
    )
    result = (
        f"{OURS} trains {ratio['value']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) times as "
        f"many pictures per second as the {PLAIN} (median of {settings['rounds']} rounds, 95 % "
        "bootstrap interval)"
    )
    notes = [result, f"{OURS}: {document['rows'][0]['tried']}"]
    notes += [f"{name}: {value}" for name, value in card(document)]
    notes += [f"NOISY: {reason}" for reason in document["noise"]] or ["the machine was quiet"]
    lines = [*wrap(head), "", *plain_table(heads, rows), ""]
    return "\n".join(lines + [line for note in notes for line in wrap(note)])


def report(options: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        GateError: The ratio is below `--min-ratio`.
    """
    document = run(options)
    print(text(document))
    if options.json is not None:
        write_text(options.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
    value = document["ratio"]["value"]
    if options.min_ratio is not None and value < options.min_ratio:
        raise GateError(f"the ratio is {value:.2f}, at least {options.min_ratio:g} asked for")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="a folder, a .zip or sample; else $CATDOG_DATA or sample")
    parser.add_argument("--limit", type=int, default=800, help="images to take, all splits (800)")
    parser.add_argument("--arch", default="simple_cnn", help="the network (simple_cnn)")
    parser.add_argument("--batch-size", type=int, default=20, help="images per step (20)")
    parser.add_argument(
        "--augment", choices=get_args(Policy), default="classic", help="in both (classic)"
    )
    parser.add_argument("--threads", type=command_line.threads, help="of PyTorch, in both")
    parser.add_argument(
        "--seconds", type=command_line.seconds, default=60.0, help="for the rounds (60)"
    )
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--min-ratio", type=float, help="exit with code 3 below this")
    options = parser.parse_args(arguments)
    return command_line.exit_code("train_throughput", lambda: report(options))


if __name__ == "__main__":
    sys.exit(main())
