"""Other runtimes on the same files, and the cost of a well-known wrapper: one interleaved run.

    python -m benchmarks.studies.peers [--weights runs/NAME/best.pt] [--model FILE] [--threads N]

How each peer is fed is in `peer_runtimes`, the watch is `harness`. A peer takes a frame as a
camera gives it (`uint8 [H,W,3]` BGR) to probabilities, with the resize of the spec and the same
number of threads as all others. Every peer on our files answers one picture first and is
compared with `Classifier`, so that speed is never bought with another answer unseen. What is
not installed is left out by name; the extra `[peers]` brings all of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.measure import environment, interleaved
from benchmarks.plan import check_writable, checkpoint
from benchmarks.report import text as words
from benchmarks.report.tables import card
from benchmarks.studies.peer_runtimes import PEERS, ULTRALYTICS, Ask, Setting, Ultralytics
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, preprocess
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.runtime.threads import MOST, Threads, choose_threads
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import write_text

LARGE = (1080, 1920)
"""Height and width of the large frame."""


@dataclass(frozen=True)
class Opened:
    """A peer that runs.

    Attributes:
        ask: Image to probabilities.
        difference: Largest difference of a probability from `Classifier` on the picture;
            `None` for a peer with a network of its own.
        reference: The row that its ratio is to.
    """

    ask: Ask
    difference: float | None
    reference: str


def open_peers(setting: Setting, frame: Image) -> tuple[dict[str, Opened], dict[str, str]]:
    """Open what is installed, and let each answer once.

    Args:
        setting: What to open.
        frame: `uint8 [H,W,3]` BGR.

    Returns:
        The peers by name; and by name, why one is left out.
    """
    found: dict[str, Opened] = {}
    left: dict[str, str] = {}
    first = next(iter(PEERS))
    expected: npt.NDArray[np.float32] | None = None
    for name, build in PEERS.items():
        try:
            ask = build(setting)
            answer = ask(frame)
            distance = 0.0 if expected is None else float(np.abs(answer - expected).max())
        except Exception as error:  # a peer's own errors are of many kinds; each is told
            if name == first:
                raise
            left[name] = _reason(error)
            continue
        if expected is None:
            expected = answer
        found[name] = Opened(ask, distance, first)
    theirs = f"{ULTRALYTICS}, bare session"
    try:
        other = Ultralytics(setting)
        for name, ask in ((theirs, other.bare()), (f"{ULTRALYTICS}, predict", other.predict())):
            ask(frame)
            found[name] = Opened(ask, None, theirs)
    except Exception as error:
        left[ULTRALYTICS] = _reason(error)
    return found, left


def compare(
    peers: dict[str, Opened],
    frame: Image,
    seconds: float,
    reopen: Callable[[], dict[str, Opened]] | None = None,
) -> tuple[interleaved.Measurement, list[dict[str, Any]]]:
    """Time all peers on one frame, interleaved.

    Args:
        peers: From `open_peers`.
        frame: `uint8 [H,W,3]` BGR.
        seconds: The budget.
        reopen: Opens the same peers again, for the passes of `harness.measure`.
    """

    def calls(opened: dict[str, Opened]) -> dict[str, Callable[[], object]]:
        def call(ask: Ask) -> Callable[[], object]:
            return lambda: ask(frame)

        return {name: call(peer.ask) for name, peer in opened.items()}

    def again() -> dict[str, Callable[[], object]] | None:
        assert reopen is not None
        opened = calls(reopen())
        return opened if opened.keys() == peers.keys() else None

    measured = interleaved.measure(
        calls(peers),
        seconds,
        references={name: peer.reference for name, peer in peers.items()},
        reopen=again if reopen else None,
    )
    rows = [
        {
            "name": name,
            "difference": peer.difference,
            "ratio": {**asdict(measured.ratios[name]), "to": peer.reference},
            "latency": measured.summaries[name].to_dict(),
        }
        for name, peer in peers.items()
    ]
    return measured, rows


def large_frame(frame: Image) -> Image:
    """The same picture at 1080p, `uint8 [1080,1920,3]`."""
    return np.asarray(cv2.resize(frame, LARGE[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text."""
    heads = ["peer", "time / first's", "p50 ms", "p95", "p99", "mean", "max dp"]
    return heads, [
        [
            row["name"],
            "1" if row["ratio"]["to"] == row["name"] else words.ratio(row["ratio"]),
            *(words.milliseconds(row["latency"][f"{name}_ms"]) for name in ("p50", "p95", "p99")),
            words.milliseconds(row["latency"]["mean_ms"]),
            "-" if row["difference"] is None else f"{row['difference']:.1e}",
        ]
        for row in rows
    ]


def run(
    setting: Setting,
    picture: Image,
    seconds: float,
    card: environment.Environment | None = None,
) -> dict[str, Any]:
    """Open the peers, time them on a small and a large frame, and say how quiet it was.

    Args:
        setting: What is compared.
        picture: `uint8 [H,W,3]` BGR.
        seconds: For each of the two frames.
        card: The environment, where the process was then kept to a part of it.
    """
    found = card or environment.Environment.detect(Threads(setting.threads, "--threads"))
    watch = environment.ActivityMonitor()
    small = preprocess(picture, setting.spec.resize)
    peers, left = open_peers(setting, small)
    frames = []
    drifts: list[tuple[str, float]] = []
    unsettled: list[str] = []
    for frame in (small, large_frame(picture)):
        measured, rows = compare(peers, frame, seconds, lambda: open_peers(setting, small)[0])
        drifts += measured.drifts
        unsettled += [name for name in measured.unsettled if name not in unsettled]
        frames.append(
            {"height": frame.shape[0], "width": frame.shape[1], "rounds": measured.timing.rounds,
             "pass_starts": list(measured.timing.starts), "rows": rows}
        )  # fmt: skip
    quiet = watch.stop()
    return {
        "kind": "catdog-edge peers",
        "schema": 1,
        "model": {
            "file": setting.model.name,
            "architecture": setting.spec.architecture,
            "precision": setting.spec.precision,
            "height": setting.spec.height,
            "width": setting.spec.width,
        },
        "threads": setting.threads,
        "seconds": seconds,
        "environment": found.to_dict(),
        "quiet": quiet.to_dict(),
        "noise": environment.noise_reasons(found, quiet, drifts, unsettled),
        "frames": frames,
        "left_out": left,
    }


def text(document: dict[str, Any]) -> str:
    """The tables for a terminal of 100 columns."""
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
    for name, reason in document["left_out"].items():
        lines += words.wrap(f"left out: {name}: {reason}")
    lines += [line for name, value in card(document) for line in words.wrap(f"{name}: {value}")]
    lines += words.wrap(
        "max dp is the largest difference of a probability from Classifier on the same picture; "
        f"{ULTRALYTICS} is a network of its own, and compared with its own bare session."
    )
    return "\n".join(lines)


def _check_same(weights: Path, model: Path, spec: ModelSpec) -> None:
    """Refuse a file that cannot be an export of the checkpoint: its peers run another network.

    Another training of the same architecture, classes and size is shown by `max dp` alone.

    Raises:
        CatdogError: Architecture, classes or size are others, or the checkpoint is damaged.
    """
    from catdog_edge.training.models.checkpoint import load_checkpoint

    _, other = load_checkpoint(weights)
    for name in ("architecture", "labels", "size"):
        theirs, ours = getattr(spec, name), getattr(other, name)
        if theirs != ours:
            raise CatdogError(
                f"{model} was not exported from {weights}: its {name} is {theirs}, there {ours}; "
                "name the two that belong together"
            )


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; the extra [peers] brings it"
    words = str(error).strip() or type(error).__name__
    return words.splitlines()[0][:200]


@contextlib.contextmanager
def _only(processors: int) -> Iterator[None]:
    """Keep the process to some processors, where the system can do that.

    Not every peer can be told how many threads to start; all look at what they may use.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@click.command()
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A checkpoint.  [default: newest run's best.pt]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="An exported file of it.  [default: model.onnx beside it]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST),
    help="For every peer.  [default: what the runtime takes]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="For each of the two frames.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="A picture.  [default: the first test picture of the run]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where peers.json goes.  [default: beside the weights]",
)
def main(
    weights: Path | None,
    model: Path | None,
    threads: int | None,
    seconds: float,
    picture: Path | None,
    out: Path | None,
) -> None:
    """Compare the runtimes that are installed on one model, interleaved."""
    from catdog_edge.images.read import read_picture
    from catdog_edge.training.runs.run_folder import newest_run, run_of

    try:
        if not math.isfinite(seconds):
            raise click.BadParameter("give a number of seconds", param_hint="--seconds")
        weights = checkpoint(weights) if weights else newest_run().weights
        folder = out or weights.parent
        check_writable(folder)
        model = model or weights.with_name("model.onnx")
        spec = read_spec(model)
        _check_same(weights, model, spec)
        if picture is not None:
            try:
                frame = read_picture(picture)
            except CatdogError as error:
                raise CatdogError(f"--picture {picture}: {error}") from error
        else:
            of_run = run_of(weights)
            if of_run is None:
                raise CatdogError(f"{weights} lies in no run folder; name a picture with --picture")
            dataset = of_run.dataset()
            items = dataset.items_of("test")
            if not items:
                raise CatdogError(
                    f"{dataset.source} has no test pictures; name a picture with --picture"
                )
            frame = dataset.decode(items[0])
        chosen = choose_threads(threads)
        found = environment.Environment.detect(chosen)
        with tempfile.TemporaryDirectory() as scratch, _only(chosen.count):
            setting = Setting(weights, model, spec, chosen.count, Path(scratch))
            document = run(setting, frame, seconds, found)
        target = folder / "peers.json"
        write_text(target, json.dumps(document, indent=1, allow_nan=False) + "\n")
    except CatdogError as error:
        click.echo(f"peers: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(text(document))
    click.echo(f"\n{target}")


if __name__ == "__main__":
    main()
