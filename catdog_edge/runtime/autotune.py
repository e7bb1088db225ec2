"""Which provider is fastest for this very model on this very machine: timed once, remembered.

Knows sessions that already run, nothing of how they were made. A provider whose answers
differ from the CPU provider's is out, however fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import to_layout
from catdog_edge.runtime import openvino
from catdog_edge.runtime.model_file import PROBABILITIES, ModelFile
from catdog_edge.system import packages
from catdog_edge.system.cpu import read_cpu
from catdog_edge.system.files import cache_folder, write_text

if TYPE_CHECKING:
    import onnxruntime

    from catdog_edge.runtime.providers import Settings

PARITY = 0.02
"""Largest difference of a probability from the CPU provider's that still counts as the same.
A processor with AMX runs OpenVINO in bfloat16, which alone is good for about 0.01."""

ROUNDS = 3
"""Turns that every provider gets."""

BLOCK = 0.08
"""Seconds of calls in one turn, at least three calls."""

PAUSE = 0.05
"""Seconds of sleep before a turn: the rival's threads spin for a while after its last call, and
would slow this one down several times."""

ENTRIES = 50
"""Choices that are remembered; the oldest is forgotten first."""

log = logging.getLogger("catdog_edge")


@dataclass(frozen=True)
class Chosen:
    """What a trial found.

    Attributes:
        provider: Short name.
        reason: The figures, in words for people.
    """

    provider: str
    reason: str


def compare(sessions: Mapping[str, onnxruntime.InferenceSession]) -> Chosen:
    """Time calls of each session in turns, and choose.

    Args:
        sessions: By short name; `cpu` is among them.
    """
    frames = sample_input(sessions["cpu"])
    running: dict[str, onnxruntime.InferenceSession] = {}
    notes: list[str] = []
    try:
        expected = _answer(sessions["cpu"], frames)
    except Exception as error:  # whatever it is, the first call of the caller raises it
        return Chosen("cpu", f"no trial, cpu failed ({' '.join(str(error).split())[:100]})")
    if not np.isfinite(expected).all():
        return Chosen("cpu", "no trial, the model's answers are not numbers")
    for name, session in sessions.items():
        try:
            # The first calls compile and allocate; they are also what parity is read from.
            difference = float(np.abs(_answer(session, frames) - expected).max())
            _answer(session, frames)
        except Exception as error:  # each provider has its own kinds
            notes.append(f"{name} failed ({' '.join(str(error).split())[:100]})")
            continue
        if not difference <= PARITY:
            notes.append(f"{name} left out, its answers differ by {difference:.2g}")
            continue
        running[name] = session
    turns: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, session in running.items():
            turns[name].append(_turn(session, frames))
    # The best of its turns: whatever else runs on the machine can only slow one down.
    medians = {name: 1000 * min(values) for name, values in turns.items()}
    best = min(medians, key=lambda name: medians[name])
    figures = ", ".join(f"{name} {median:.2f} ms" for name, median in medians.items())
    chosen = Chosen(best, "; ".join([f"fastest here of {figures}", *notes]))
    log.info("provider %s: %s", chosen.provider, chosen.reason)
    return chosen


def _turn(session: onnxruntime.InferenceSession, frames: npt.NDArray[Any]) -> float:
    """The median call of one turn, in seconds."""
    time.sleep(PAUSE)
    _answer(session, frames)
    times: list[float] = []
    end = time.perf_counter() + BLOCK
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        _answer(session, frames)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sample_input(session: onnxruntime.InferenceSession, seed: int = 0) -> npt.NDArray[Any]:
    """One batch of coloured patches under noise, of the shape and type that a session takes.

    Random, but neither flat nor pure noise: a network must not be able to answer it by chance.
    """
    one = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in one.shape]
    floats = one.type != "tensor(uint8)"
    count, height, width = shape[0], *(shape[2:] if floats else shape[1:3])
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (count, 4, 4, 3))
    tall, wide = -(-height // 4), -(-width // 4)
    smooth = patches.repeat(tall, axis=1).repeat(wide, axis=2)[:, :height, :width]
    frames = smooth + random.integers(-32, 33, smooth.shape)
    pictures: npt.NDArray[np.uint8] = frames.clip(0, 255).astype(np.uint8)
    return to_layout(pictures, "nchw-float" if floats else "nhwc-uint8")


def _answer(
    session: onnxruntime.InferenceSession, frames: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    name = session.get_inputs()[0].name
    return np.asarray(session.run([PROBABILITIES], {name: frames})[0], dtype=np.float32)


def cache_key(file: ModelFile, settings: Settings, candidates: Sequence[str]) -> str:
    """A digest of all that the choice depends on: model, versions, processor, settings."""
    import onnxruntime

    from catdog_edge import __version__

    parts = [
        __version__,
        file.digest(),
        onnxruntime.__version__,
        *packages.builds(packages.RUNTIMES),
        openvino.version(),
        *candidates,
        read_cpu().name,
        *read_cpu().features,
        f"{settings.threads} threads",
        f"spin {settings.spin}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def cache_file() -> Path:
    """Where choices are remembered."""
    return cache_folder() / "providers.json"


def recall(key: str) -> Chosen | None:
    """The remembered choice; a missing or damaged cache remembers nothing."""
    entry = _entries().get(key)
    return Chosen(entry["provider"], entry["reason"]) if entry else None


def remember(key: str, chosen: Chosen) -> None:
    """Keep a choice. A cache that cannot be written costs a trial next time, nothing else."""
    entries = _entries()
    entries.pop(key, None)
    entries[key] = {"provider": chosen.provider, "reason": chosen.reason}
    kept = dict(list(entries.items())[-ENTRIES:])
    with contextlib.suppress(CatdogError, ValueError):  # ValueError: no path at all
        write_text(cache_file(), json.dumps(kept, indent=1) + "\n")


def _entries() -> dict[str, dict[str, str]]:
    from catdog_edge.runtime.providers import NAMES

    try:
        document = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, CatdogError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        key: entry
        for key, entry in document.items()
        if isinstance(entry, dict)
        and isinstance(entry.get("provider"), str)
        and entry["provider"] in NAMES
        and isinstance(entry.get("reason"), str)
    }
