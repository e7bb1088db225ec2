"""Latency of the rows: interleaved calls, and the stages of a call."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np

from benchmarks.measure.interleaved import Calls, Measurement, measure
from benchmarks.runners import Runner, open_row
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, preprocess
from catdog_edge.images.read import decode_picture

log = logging.getLogger(__name__)

FRAMES = 32
"""Different frames that the timed calls cycle through, so that none finds its own in a cache."""

JPEG_QUALITY = 95
"""Of the JPEG whose decoding is timed as a stage."""

UNRESOLVED = 0.1
"""Share of a call by which its stages may exceed it; beyond that their rest is not known."""


def time_rows(runners: Sequence[Runner], frames: Sequence[Image], seconds: float) -> Measurement:
    """Time frame to probabilities for every row, interleaved.

    A call takes a decoded frame at its own size through the runtime's preprocessing and the
    engine; with a batch, that many frames.

    Args:
        runners: The rows; the ratio of each is to the PyTorch row with its threads and batch.
        frames: `uint8 [H,W,3]` BGR; the first `FRAMES` are used.
        seconds: The budget for all rows together.
    """

    def calls(opened: Iterable[Runner]) -> Calls:
        return {one.row.name: _call(one, frames[:FRAMES]) for one in opened}

    def reopen() -> Calls | None:
        try:
            return calls([open_row(one.row) for one in runners])
        except CatdogError as error:  # what has been measured is kept
            log.warning("a row cannot be opened again, so the passes end here: %s", error)
            return None

    # The first pass is opened anew like the others: `runners` stay open beside all of them.
    return measure(
        reopen() or calls(runners),
        seconds,
        references={one.row.name: one.row.reference for one in runners},
        reopen=reopen,
    )


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
    """Split the time of a call into stages, in milliseconds (medians of an interleaved run).

    Args:
        runner: A row with batch 1.
        frames: `uint8 [H,W,3]` BGR.
        seconds: The budget.

    Returns:
        `decode` (the frame as a JPEG in memory, not part of the call), `resize`, `session` (the
        engine alone, on the resized image), `rest` (the call less these two) and `answer` (the
        whole call). `rest` is at least 0, and `None` where noise slowed the stages by more than
        it: where they exceed the call by more than `UNRESOLVED`.
    """
    pool = frames[:8]
    steps = runner.spec.resize
    resized = [preprocess(frame, steps)[None] for frame in pool]
    files = [as_jpeg(frame) for frame in pool]
    turn = {name: itertools.cycle(range(len(pool))) for name in "drsa"}
    measured = measure(
        {
            "answer": lambda: runner.probabilities([pool[next(turn["a"])]]),
            "session": lambda: runner.infer(resized[next(turn["s"])]),
            "resize": lambda: preprocess(pool[next(turn["r"])], steps),
            "decode": lambda: decode_picture(files[next(turn["d"])]),
        },
        seconds,
    )
    blocks = {name: row.block_medians * 1e3 for name, row in measured.timing.rows.items()}
    found = {name: float(np.median(one)) for name, one in blocks.items()}
    # Round by round: what slows a whole round cancels.
    rest = float(np.median(blocks["answer"] - blocks["session"] - blocks["resize"]))
    return {
        "decode": found["decode"],
        "resize": found["resize"],
        "session": found["session"],
        "rest": None if rest < -UNRESOLVED * found["answer"] else max(0.0, rest),
        "answer": found["answer"],
    }


def as_jpeg(frame: Image) -> bytes:
    """Encode a frame, `uint8 [H,W,3]` BGR, as a JPEG."""
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
