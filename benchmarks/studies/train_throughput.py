"""Pictures per second of training: this tool against a plain loop, in one interleaved run.

    python -m benchmarks.studies.train_throughput [--data PATH] [--arch simple_cnn]
                                          [--batch-size 20] [--seconds 60] [--json FILE]

Both train the same network from the same weights with Adam, the same batch size, the same
augmentation and the same number of threads; `benchmarks.studies.training_loops` says what sets them
apart. Blocks of steps take turns with a pause between. A table for people; `--json` keeps the
figures; `--min-ratio` makes it exit with code 3 where the ratio is below.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, get_args

import cv2

from benchmarks.measure import environment
from benchmarks.measure.interleaved import PAUSE, Measurement, measure
from benchmarks.report.text import milliseconds, plain_table, wrap
from benchmarks.studies.training_loops import LOOPS, Loop, Setting
from catdog_edge.errors import CatdogError, DataError, GateError
from catdog_edge.runtime.threads import Threads, choose_threads
from catdog_edge.spec import squash
from catdog_edge.system.files import write_text
from catdog_edge.training.config.recipes import Policy
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.load import open_dataset, pixels
from catdog_edge.training.data.sources import Source, open_source
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.runs.progress import ReadingProgress

OURS, PLAIN = LOOPS

FIRST = 2
"""Steps before any is looked at: PyTorch imports parts of itself in the first one."""

PACKAGES = ("torch", "numpy", "opencv-python", "opencv-python-headless")
"""Those of the environment card that matter here."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Raises:
        CatdogError: The data or an option is not what it must be, or a loop failed.
    """
    arch = architecture(options.arch)
    steps = squash(arch.size, arch.size)
    threads = _checked(options)
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
    card = environment.Environment.detect(threads)
    # From before the loops start until they have ended: only then is their processor time
    # known to be this process's own.
    watch = environment.ActivityMonitor()
    with tempfile.TemporaryDirectory(prefix="train-throughput-") as scratch:
        setting = Setting(
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
        with ExitStack() as stack:
            loops = [stack.enter_context(closing(Loop(name, setting))) for name in LOOPS]
            for loop in loops * FIRST:
                loop.step()
            found = measure(
                {loop.name: loop.step for loop in loops},
                options.seconds,
                references={PLAIN: OURS, OURS: OURS},
            )
            notes = {loop.name: loop.notes for loop in loops}
    quiet = watch.stop()
    drifts = found.drifts
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
        "rows": [_row(name, notes[name], found, options.batch_size) for name in LOOPS],
        "environment": card.to_dict(),
        "quiet": quiet.to_dict(),
        "noise": environment.noise_reasons(card, quiet, drifts),
    }


def _checked(options: argparse.Namespace) -> Threads:
    if options.batch_size < 2:
        raise CatdogError(f"--batch-size must be at least 2, got {options.batch_size}")
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise CatdogError(f"--seconds must be a number above 0, got {options.seconds}")
    try:
        return choose_threads(options.threads)
    except ValueError as error:
        raise CatdogError(f"--{error}") from error


def _row(name: str, notes: dict[str, str], found: Measurement, batch_size: int) -> dict[str, Any]:
    summary = found.summaries[name]
    return {
        "name": name,
        **notes,
        "pictures_per_second": batch_size / (summary.p50_ms / 1e3),
        "step": summary.to_dict(),
        "warm_up": vars(found.warm_ups[name]),
    }


def write_jpegs(dataset: Dataset, items: Sequence[Item], folder: Path) -> tuple[str, ...]:
    """Write pictures as JPEG files, for the loop that decodes them every epoch.

    JPEG files of the data set are copied byte for byte; what is none (a PNG, a drawing) is
    written at its own size with OpenCV's usual quality of 95.

    Args:
        dataset: Where they are.
        items: Which.
        folder: Where to write.

    Returns:
        The paths, in the order of `items`.

    Raises:
        CatdogError: A picture has changed, or the disk is full.
    """
    source = None if dataset.is_sample else open_source(dataset.source)
    paths = [folder / f"{number:06}.jpg" for number in range(len(items))]
    for path, item in zip(paths, items, strict=True):
        try:
            path.write_bytes(_jpeg(dataset, source, item))
        except OSError as error:
            raise CatdogError(
                f"cannot write {path}: {error.strerror}; make room, or lower --limit"
            ) from error
    return tuple(str(path) for path in paths)


def _jpeg(dataset: Dataset, source: Source | None, item: Item) -> bytes:
    if source is not None:
        data = source.read(item.file)
        if data.startswith(b"\xff\xd8\xff"):
            return data
    written, coded = cv2.imencode(".jpg", dataset.decode(item))
    if not written:
        raise CatdogError("OpenCV cannot write a JPEG here; install another build of it")
    return coded.tobytes()


def text(document: dict[str, Any]) -> str:
    """The document as a table for people, at most 100 columns wide."""
    settings, found, quiet = document["settings"], document["environment"], document["quiet"]
    ratio = document["ratio"]
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
    packages = ", ".join(
        f"{name} {found['packages'][name]}" for name in PACKAGES if name in found["packages"]
    )
    others = quiet["others_busy"]
    card = [
        f"processor: {found['processor']}{', virtual machine' if found['hypervisor'] else ''}",
        f"instructions: {', '.join(found['flags']) or 'none of those that matter'}",
        f"threads: {found['threads']} of {found['processors_usable']} usable processors, from "
        f"{found['threads_source']}",
        f"system: {found['system']}, {found['python']}, {packages}",
        "others: "
        + ("not told" if others is None else f"{others:.2f} processors busy with other processes"),
    ]
    if found["variables"]:
        told = ", ".join(f"{name}={value}" for name, value in found["variables"].items())
        card.append(f"variables: {told}")
    noise = [f"NOISY: {reason}" for reason in document["noise"]] or ["the machine was quiet"]
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
    tried = f"{OURS}: {document['rows'][0]['tried']}"
    lines = [*wrap(head), "", *plain_table(heads, rows), "", *wrap(result), *wrap(tried), ""]
    return "\n".join(lines + [line for entry in (*card, *noise) for line in wrap(entry)])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 where it could not, 3 where `--min-ratio` is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="a folder, a .zip or sample; else $CATDOG_DATA or sample")
    parser.add_argument("--limit", type=int, default=800, help="pictures to take, all splits")
    parser.add_argument("--arch", default="simple_cnn", help="the network (simple_cnn)")
    parser.add_argument("--batch-size", type=int, default=20, help="pictures per step (20)")
    parser.add_argument(
        "--augment", choices=get_args(Policy), default="classic", help="on both sides (classic)"
    )
    parser.add_argument("--threads", type=int, help="of PyTorch, in both")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the rounds (60)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--min-ratio", type=float, help="exit with code 3 below this")
    options = parser.parse_args(arguments)
    try:
        document = run(options)
        print(text(document))
        if options.json is not None:
            write_text(options.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
        value = document["ratio"]["value"]
        if options.min_ratio is not None and value < options.min_ratio:
            raise GateError(f"the ratio is {value:.2f}, at least {options.min_ratio:g} asked for")
    except CatdogError as error:
        print(f"train_throughput: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train_throughput: stopped; nothing is kept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
