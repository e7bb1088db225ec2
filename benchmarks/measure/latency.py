"""Latency of the rows: interleaved calls, and the stages of a call."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np

from benchmarks.bench_rows import Runner, open_row, references
from benchmarks.measure.interleaved import Calls, Measurement, measure
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, preprocess
from catdog_edge.images.read import decode_picture
from catdog_edge.system.console import progress_bar

log = logging.getLogger(__name__)

FRAMES = 32  # that the timed calls cycle through, so that none finds its own in a cache
JPEG_QUALITY = 95  # of the JPEG whose decoding is timed as a stage
UNRESOLVED = 0.1  # share of a call by which its stages may exceed it; the rest is still reported


def time_rows(runners: Sequence[Runner], frames: Sequence[Image], seconds: float) -> Measurement:
    """Time frame to probabilities for every row, interleaved, `seconds` for all together.

    A call takes a decoded frame (`uint8 [H,W,3]` BGR, the first `FRAMES` are used) at its own size
    through the runtime's preprocessing and the engine; with a batch, that many frames. The ratio
    of a row is to its PyTorch row, see `references`.
    """

    def calls(opened: Iterable[Runner]) -> Calls:
        return {one.row.name: _call(one, frames[:FRAMES]) for one in opened}

    def reopen() -> Calls | None:
        try:
            return calls([open_row(one.row) for one in runners])
        except CatdogError as error:  # what has been measured is kept
            log.warning("a row cannot be opened again, so the passes end here: %s", error)
            return None

    count = progress_bar("timing, seconds", math.ceil(seconds))
    # The first pass is opened again like the others: `runners` stay open beside all of them.
    measured = measure(
        reopen() or calls(runners),
        seconds,
        references=references([one.row for one in runners]),
        reopen=reopen,
        progress=lambda spent: count(int(spent)),
    )
    count(math.ceil(seconds))
    return measured


def _call(runner: Runner, frames: Sequence[Image]) -> Callable[[], object]:
    size = runner.row.batch
    starts = range(0, len(frames), size)
    batches = itertools.cycle(
        [[frames[(start + offset) % len(frames)] for offset in range(size)] for start in starts]
    )
    classify = runner.probabilities
    return lambda: classify(next(batches))


def stages(
    runner: Runner, frames: Sequence[Image], seconds: float = 1.5
) -> dict[str, float | None]:
    """Split the time of a call of a row with batch 1 into stages: medians in milliseconds.

    `decode` is that of the frame as a JPEG in memory, `session` the engine alone, `rest` the call
    less `resize` and `session`, `answer` the whole call. `rest` is at least 0, and `None` where
    noise slowed the stages until they exceed the call by more than `UNRESOLVED`.
    """
    pool, steps = frames[:8], runner.spec.resize
    single, whole = itertools.cycle([[frame] for frame in pool]), itertools.cycle(pool)
    resized = itertools.cycle([preprocess(frame, steps)[None] for frame in pool])
    files = itertools.cycle([as_jpeg(frame) for frame in pool])
    calls: Calls = {
        "decode": lambda: decode_picture(next(files)),
        "resize": lambda: preprocess(next(whole), steps),
        "session": lambda: runner.infer(next(resized)),
        "answer": lambda: runner.probabilities(next(single)),
    }
    timing = measure(calls, seconds).timing
    blocks = {name: row.block_medians * 1e3 for name, row in timing.rows.items()}
    found = {name: float(np.median(one)) for name, one in blocks.items()}
    # Round by round: what slows a whole round cancels.
    rest = float(np.median(blocks["answer"] - blocks["session"] - blocks["resize"]))
    answer = found.pop("answer")
    known = rest >= -UNRESOLVED * answer
    return {**found, "rest": max(0.0, rest) if known else None, "answer": answer}


def as_jpeg(frame: Image) -> bytes:
    """Encode a frame, `uint8 [H,W,3]` BGR, as a JPEG."""
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
