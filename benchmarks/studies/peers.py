"""Other runtimes on the same files, and the cost of a well-known wrapper, in one interleaved run.

    python -m benchmarks.studies.peers [--weights runs/NAME/best.pt] [--model FILE] [--threads N]

A peer takes a frame as a camera gives it to probabilities, with the resize of the spec and the
same number of threads as all others; see `peer_runtimes`. Every peer on our files first
classifies one image and is compared with `Classifier`, so that a speed with other answers is
seen. What is not installed is listed as left out; the extra `[peers]` has all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.measure.environment import ActivityMonitor, Environment, noise_reasons
from benchmarks.measure.interleaved import Calls, Measurement, measure
from benchmarks.plan import check_writable, checkpoint
from benchmarks.report import text as words
from benchmarks.report.tables import card
from benchmarks.studies import command_line
from benchmarks.studies.peer_runtimes import PEERS, ULTRALYTICS, Classify, PeerConfig, Ultralytics
from catdog_edge.errors import CatdogError, first_line
from catdog_edge.images.preprocess import Image, preprocess
from catdog_edge.images.read import read_picture
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.runtime.threads import choose_threads
from catdog_edge.system.files import write_text
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs.run_folder import newest_run, run_of

LARGE = (1080, 1920)
"""Height and width of the large frame."""


@dataclass(frozen=True)
class Peer:
    """A runtime that works.

    `difference` is the largest difference of a probability from `Classifier`, `None` for a network
    of its own; `reference` is the row that its ratio is to.
    """

    classify: Classify
    difference: float | None
    reference: str


def open_peers(config: PeerConfig, frame: Image) -> tuple[dict[str, Peer], dict[str, str]]:
    """Open what is installed, and classify a frame with each.

    Returns:
        The peers by name; and by name, why one is left out.
    """
    found: dict[str, Peer] = {}
    left: dict[str, str] = {}
    first = next(iter(PEERS))
    expected: npt.NDArray[np.float32] | None = None
    for name, build in PEERS.items():
        try:
            classify = build(config)
            answer = classify(frame)
            expected = answer if expected is None else expected
            found[name] = Peer(classify, float(np.abs(answer - expected).max()), first)
        except Exception as error:  # peers raise errors of many kinds
            if name == first:
                raise
            left[name] = _reason(error)
    theirs = f"{ULTRALYTICS}, bare session"
    try:
        other = Ultralytics(config)
        for name, classify in {
            theirs: other.bare(), f"{ULTRALYTICS}, predict": other.predict()
        }.items():  # fmt: skip
            classify(frame)
            found[name] = Peer(classify, None, theirs)
    except Exception as error:
        left[ULTRALYTICS] = _reason(error)
    return found, left


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; the extra [peers] brings it"
    return first_line(error, 200)


def compare(
    config: PeerConfig, small: Image, peers: Mapping[str, Peer], frame: Image, seconds: float
) -> tuple[Measurement, dict[str, Any]]:
    """Time all peers on one frame, interleaved; in each pass they are opened anew.

    Returns:
        The measurement, and what `peers.json` says of it.
    """

    def call(classify: Classify) -> Any:
        return lambda: classify(frame)

    def reopen() -> Calls | None:
        opened, _ = open_peers(config, small)
        calls = {name: call(peer.classify) for name, peer in opened.items()}
        return calls if calls.keys() == peers.keys() else None

    measured = measure(
        {name: call(peer.classify) for name, peer in peers.items()},
        seconds,
        references={name: peer.reference for name, peer in peers.items()},
        reopen=reopen,
    )
    rows = [
        {
            "name": name,
            "difference": peer.difference,
            "ratio": {**asdict(measured.ratios[name]), "to": peer.reference},
            "latency": asdict(measured.summaries[name]),
        }
        for name, peer in peers.items()
    ]
    return measured, {
        "height": frame.shape[0],
        "width": frame.shape[1],
        "rounds": measured.timing.rounds,
        "pass_starts": list(measured.timing.starts),
        "rows": rows,
    }


def run(
    config: PeerConfig, picture: Image, seconds: float, environment: Environment
) -> dict[str, Any]:
    """Open the peers and time them on a small and a large frame, `seconds` for each."""
    monitor = ActivityMonitor()
    small = preprocess(picture, config.spec.resize)
    large = cv2.resize(picture, LARGE[::-1], interpolation=cv2.INTER_CUBIC)
    peers, left = open_peers(config, small)
    found = [
        compare(config, small, peers, np.asarray(frame, np.uint8), seconds)
        for frame in (small, large)
    ]
    activity = monitor.stop()
    drifts = [drift for measured, _ in found for drift in measured.drifts]
    unsettled = {name: None for measured, _ in found for name in measured.unsettled}
    spec = config.spec
    return {
        "kind": "catdog-edge peers",
        "schema": 1,
        "model": {
            "file": config.model.name,
            "architecture": spec.architecture,
            "precision": spec.precision,
            "height": spec.height,
            "width": spec.width,
        },
        "threads": config.threads,
        "seconds": seconds,
        "environment": environment.to_dict(),
        "quiet": activity.to_dict(),
        "noise": noise_reasons(environment, activity, drifts, list(unsettled)),
        "frames": [frame for _, frame in found],
        "left_out": left,
    }


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text."""
    heads = ["peer", "time / first's", "p50 ms", "p95", "p99", "mean", "max dp"]
    names = ("p50", "p95", "p99", "mean")
    return heads, [
        [
            row["name"],
            "1" if row["ratio"]["to"] == row["name"] else words.ratio(row["ratio"]),
            *(words.milliseconds(row["latency"][f"{name}_ms"]) for name in names),
            words.MISSING if row["difference"] is None else f"{row['difference']:.1e}",
        ]
        for row in rows
    ]


def text(document: dict[str, Any]) -> str:
    """Format the document as tables of at most 100 columns."""
    lines: list[str] = []
    if document["noise"]:
        lines += [*words.wrap("NOISY RUN: " + "; ".join(document["noise"]) + "."), ""]
    model = document["model"]
    for frame in document["frames"]:
        lines += words.wrap(
            f"{model['file']} ({model['architecture']}, {model['precision']}), a frame of "
            f"{frame['width']}x{frame['height']}, {document['threads']} threads, "
            f"{frame['rounds']} interleaved rounds in {len(frame['pass_starts'])} openings"
        )
        lines += [*words.plain_table(*table(frame["rows"])), ""]
    notes = [f"left out: {name}: {reason}" for name, reason in document["left_out"].items()]
    notes += [f"{name}: {value}" for name, value in card(document)]
    notes.append(
        "max dp is the largest difference of a probability from Classifier on the same picture; "
        f"{ULTRALYTICS} is a network of its own, and compared with its own bare session."
    )
    return "\n".join(lines + [line for note in notes for line in words.wrap(note)])


@contextlib.contextmanager
def _only(processors: int) -> Iterator[None]:
    """Keep the process to some processors: not every peer can be told its number of threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _check_same(config: PeerConfig) -> None:
    """Refuse a file that cannot be an export of the checkpoint: its peers run another network."""
    _, other = load_checkpoint(config.weights)
    for name in ("architecture", "labels", "size"):
        theirs, ours = getattr(config.spec, name), getattr(other, name)
        if theirs != ours:
            raise CatdogError(
                f"{config.model} was not exported from {config.weights}: its {name} is {theirs}, "
                f"there {ours}; name the two that belong together"
            )


def _picture(named: Path | None, weights: Path) -> Image:
    if named is not None:
        try:
            return read_picture(named)
        except CatdogError as error:
            raise CatdogError(f"--picture {named}: {error}") from error
    of_run = run_of(weights)
    if of_run is None:
        raise CatdogError(f"{weights} lies in no run folder; name a picture with --picture")
    dataset = of_run.dataset()
    items = dataset.items_of("test")
    if not items:
        raise CatdogError(f"{dataset.source} has no test pictures; name a picture with --picture")
    return dataset.decode(items[0])


def report(options: argparse.Namespace) -> None:
    """Measure, write `peers.json` and print the tables."""
    weights = checkpoint(options.weights) if options.weights else newest_run().weights
    folder = options.out or weights.parent
    check_writable(folder)
    model = options.model or weights.with_name("model.onnx")
    chosen = choose_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        config = PeerConfig(weights, model, read_spec(model), chosen.count, Path(scratch))
        _check_same(config)
        picture = _picture(options.picture, weights)
        environment = Environment.detect(chosen)
        with _only(chosen.count):
            document = run(config, picture, options.seconds, environment)
    target = folder / "peers.json"
    write_text(target, json.dumps(document, indent=1, allow_nan=False) + "\n")
    print(f"{text(document)}\n\n{target}")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a checkpoint (the newest run's best.pt)")
    parser.add_argument("--model", type=Path, help="an exported file of it (model.onnx beside it)")
    parser.add_argument("--threads", type=command_line.threads, help="of every peer")
    parser.add_argument("--seconds", type=command_line.seconds, default=30.0, help="a frame (30)")
    parser.add_argument("--picture", type=Path, help="an image (the run's first test image)")
    parser.add_argument("--out", type=Path, help="folder of peers.json (beside the weights)")
    options = parser.parse_args(arguments)
    return command_line.exit_code("peers", lambda: report(options))


if __name__ == "__main__":
    sys.exit(main())
