"""How long the rows take: interleaved latency, the stages of a call, cold starts.

Knows rows and frames; the watch itself is in `harness`, fresh processes are in `fresh`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import interleaved
from benchmarks.measure.cold_start import ColdStart, run_fresh, summarise
from benchmarks.rows import Row, Subject, open_subject
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Frame, preprocess
from catdog_edge.images.read import decode_picture

log = logging.getLogger(__name__)

POOL = 32
"""Different frames that the timed calls go through, so that no call finds its own in a cache."""

DECODE_QUALITY = 95
"""Of the JPEG whose decoding is timed as a stage."""


def time_rows(
    subjects: Sequence[Subject], frames: Sequence[Frame], seconds: float
) -> interleaved.Measurement:
    """Time frame to probabilities for every row, interleaved.

    A call takes a frame as the data holds it (decoded, at its own size) through the
    runtime's preprocessing and the engine to probabilities; with a batch, that many frames.

    Args:
        subjects: The rows; the ratio of each is to the PyTorch row with its threads and batch.
        frames: `uint8 [H,W,3]` BGR; the first `POOL` are used in turn.
        seconds: The budget for all rows together.
    """

    def calls(opened: Iterable[Subject]) -> dict[str, Callable[[], object]]:
        return {one.row.name: _call(one, frames[:POOL]) for one in opened}

    def reopen() -> dict[str, Callable[[], object]] | None:
        try:
            return calls([open_subject(one.row) for one in subjects])
        except CatdogError as error:
            # What has been measured is not lost for it.
            log.info(f"bench: a row cannot be opened again, so the passes end here: {error}")
            return None

    # The first pass is opened anew like the others: `subjects` stay open beside all of them.
    return interleaved.measure(
        reopen() or calls(subjects),
        seconds,
        references={one.row.name: one.row.reference for one in subjects},
        reopen=reopen,
    )


def _call(subject: Subject, frames: Sequence[Frame]) -> Callable[[], object]:
    batches = itertools.cycle(
        [
            [frames[(start + offset) % len(frames)] for offset in range(subject.row.batch)]
            for start in range(0, len(frames), subject.row.batch)
        ]
    )
    ask = subject.probabilities
    return lambda: ask(next(batches))


def stages(subject: Subject, frames: Sequence[Frame], seconds: float = 1.5) -> dict[str, float]:
    """Where the time of one answer goes, in milliseconds (medians of one interleaved run).

    Args:
        subject: A row with batch 1.
        frames: `uint8 [H,W,3]` BGR.
        seconds: The budget.

    Returns:
        `decode` (the frame as a JPEG of quality 95 in memory, not part of the answer),
        `resize`, `session` (the engine alone, on the resized picture), `rest` (the answer
        less the two; near zero, and by chance below it), `answer` (all but decode). Each is
        the median over the rounds, so `rest` need not be the difference of the others.
    """
    pool = frames[: min(8, POOL)]
    steps = subject.spec.resize
    pictures = [preprocess(frame, steps)[None] for frame in pool]
    files = [_as_jpeg(frame) for frame in pool]
    turn = {name: itertools.cycle(range(len(pool))) for name in "drsa"}
    measured = interleaved.measure(
        {
            "answer": lambda: subject.probabilities([pool[next(turn["a"])]]),
            "session": lambda: subject.session(pictures[next(turn["s"])]),
            "resize": lambda: preprocess(pool[next(turn["r"])], steps),
            "decode": lambda: decode_picture(files[next(turn["d"])]),
        },
        seconds,
    )
    blocks = {name: row.block_medians * 1e3 for name, row in measured.timing.rows.items()}
    # The rest is small, and is taken round by round: what slows a whole round cancels.
    blocks["rest"] = blocks["answer"] - blocks["session"] - blocks["resize"]
    return {
        name: float(np.median(blocks[name]))
        for name in ("decode", "resize", "session", "rest", "answer")
    }


def cold_starts(
    rows: Sequence[Row],
    picture: Path,
    runs: int,
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, ColdStart], dict[str, str]]:
    """Start every row in fresh processes, in turns.

    The interpreter and every import are in the time, the disk is not: what the processes
    read is in the system's file cache, since the bench itself has read it before.

    Args:
        rows: With batch 1.
        picture: The file that each answers.
        runs: Counted processes per row, 1 or more.
        progress: Called with the name of the row that is started.

    Returns:
        By row what was measured; and by row why it did not run.
    """
    found: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    failed: dict[str, str] = {}
    for _ in range(runs):
        for row in rows:
            if row.name in failed:
                continue
            if progress is not None:
                progress(row.name)
            try:
                found[row.name].append(run_fresh(row.to_dict(), picture))
            except CatdogError as error:
                failed[row.name] = str(error)
    good = {name: measured for name, measured in found.items() if name not in failed}
    return {name: summarise(measured) for name, measured in good.items()}, failed


def save_picture(frame: Frame, path: Path) -> Path:
    """Write a frame as a JPEG for the fresh processes to read."""
    path.write_bytes(_as_jpeg(frame))
    return path


def drifts(measurement: interleaved.Measurement) -> Mapping[str, float]:
    """By row, how much its speed wandered from round to round."""
    return {name: summary.drift for name, summary in measurement.summaries.items()}


def _as_jpeg(frame: Frame) -> bytes:
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, DECODE_QUALITY])
    return bytes(np.asarray(data).tobytes())
