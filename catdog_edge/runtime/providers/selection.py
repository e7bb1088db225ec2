"""Choose the provider of a model: the requested one, or with `auto` the fastest that starts.

If several start, a few calls of this model are timed once, and the choice is cached. A provider
whose outputs differ from the CPU provider's is excluded.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError, ProviderError, first_line
from catdog_edge.runtime.model_file import PROBABILITIES, ModelFile
from catdog_edge.runtime.onnxruntime_errors import INSTEAD
from catdog_edge.runtime.providers import openvino
from catdog_edge.runtime.providers.start import (
    GPU,
    NAMES,
    Asked,
    Pairs,
    Settings,
    by_plugin,
    parse,
    short_provider_name,
    start_session,
)
from catdog_edge.system import packages
from catdog_edge.system.files import cache_folder, write_text

if TYPE_CHECKING:
    import logging

    from onnxruntime import InferenceSession as _Session

    from catdog_edge.runtime.providers.io_binding import BoundRunner

AUTO = ("cuda", "coreml", "openvino")
"""What `auto` tries before the CPU, best first. TensorRT builds an engine for minutes: it is
taken when it is asked for by name."""

AUTOTUNE = "CATDOG_EDGE_AUTOTUNE"

PARITY = 0.02
"""Largest difference of a probability from the CPU provider's that still counts as the same.
A processor with AMX runs OpenVINO in bfloat16, which alone is good for about 0.01."""

ROUNDS = 3  # blocks of calls that every provider gets; they are interleaved
BLOCK = 0.08  # seconds of calls in one block, at least three calls

PAUSE = 0.05
"""Seconds of sleep before a block: the rival's threads spin for a while after its last call, and
would slow this one down several times."""

REMEMBERED = 50  # choices that are kept; the oldest is dropped first

_warned: set[str] = set()

_Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Opened:
    """An open session.

    `again` opens it with fewer options of the provider, given the error that the session raised;
    `None`: no options are left to omit.
    """

    session: _Session
    provider: str  # short name of the first one
    file: ModelFile  # that was opened: of a shipped model, the form for the provider
    why: str  # this provider was chosen
    how: str = ""  # features of the provider that are in use
    again: Callable[[BaseException], Opened] | None = None

    @property
    def reason(self) -> str:
        """Human-readable."""
        return "; ".join(filter(None, (self.why, self.how)))


def open_model(file: ModelFile, asked: Asked, settings: Settings) -> Opened:
    """Open a model with the requested provider, or the best that starts.

    Raises:
        ValueError: `asked` has the wrong form.
        ModelError: The model cannot be loaded by any provider.
        ProviderError: A requested provider does not run on this machine.
        MissingPackageError: onnxruntime is not installed, or is broken.
    """
    packages.import_complete("onnxruntime")
    if asked == "auto":
        return _open_best(file, settings)
    return _open(file, parse(asked), settings, "asked for by name")


def _open(
    file: ModelFile,
    pairs: Pairs,
    settings: Settings,
    why: str = "",
    skip: int = 0,
    unsuited: str = "",
) -> Opened:
    """Open with the best options that work for the model, after the first `skip`."""
    name = short_provider_name(pairs[0][0])
    if name not in GPU:
        return Opened(start_session(file, pairs, settings), name, file, why)
    from catdog_edge.runtime.providers import nvidia  # not loaded where the CPU runs

    file = nvidia.model_for(file, name)
    ways = nvidia.attempts(file, pairs)
    engine = nvidia.engine_source(file, ways[0].pairs)
    while True:
        try:
            session = start_session(file, ways[skip].pairs, settings)
            break
        except ProviderError as error:
            skip += 1
            if error.__cause__ is None or skip == len(ways):
                raise
            unsuited = nvidia.refusal(error.__cause__)
    how = [nvidia.features(session.get_provider_options()[NAMES[name]])]
    if engine is not None:
        how.append(engine())
    if unsuited:
        how.append(f"{ways[skip].lacks} ({unsuited})")

    def again(error: BaseException) -> Opened:
        return _open(file, pairs, settings, why, skip + 1, nvidia.refusal(error))

    left = again if skip + 1 < len(ways) else None
    return Opened(session, name, file, why, "; ".join(how), left)


def bind(session: _Session, provider: str, outputs: Sequence[str]) -> BoundRunner | None:
    """Bind the buffers of a session on a GPU; `None` for another provider."""
    if provider not in GPU:
        return None
    from catdog_edge.runtime.providers.io_binding import BoundRunner
    from catdog_edge.runtime.providers.nvidia import captures_graphs

    options = session.get_provider_options()[NAMES[provider]]
    device = int(options.get("device_id", "0"))
    return BoundRunner(session, outputs, "cuda", device, graphs=captures_graphs(options))


def accelerators() -> list[str]:
    """List the short names of installed providers besides the CPU, best first; see `open_model`."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in AUTO if NAMES[name] in available or by_plugin(NAMES[name])]


def _open_best(file: ModelFile, settings: Settings) -> Opened:
    """Open a model with the best provider that starts; warn once about those that do not."""
    others = accelerators()
    cpu = [(NAMES["cpu"], dict[str, str]())]
    if not others:
        return Opened(
            start_session(file, cpu, settings), "cpu", file, "the only one that is installed"
        )
    tune = os.environ.get(AUTOTUNE, "1").strip() != "0"
    key = _key(file, settings, others) if tune else ""
    if tune and (known := _choices().get(key)):
        opened = _try_provider(file, known["provider"], settings)
        if opened is not None:
            return replace(opened, why=f"{known['reason']}, remembered")
    started: dict[str, Opened] = {}
    for name in others:
        opened = _try_provider(file, name, settings)
        if opened is not None:
            started[name] = opened
            if not tune:
                return replace(opened, why=f"the first that starts ({AUTOTUNE}=0)")
    plain = Opened(start_session(file, cpu, settings), "cpu", file, "")
    if not started:
        return replace(plain, why=f"{', '.join(others)} did not start")
    every = {"cpu": plain} | {name: _usable(one, name) for name, one in started.items()}
    forms = {name: one.file for name, one in started.items() if one.file != file}
    references = {name: start_session(form, cpu, settings) for name, form in forms.items()}
    name, why = time_sessions({name: opened.session for name, opened in every.items()}, references)
    _remember(key, name, why)
    return replace(every[name], why=why)


def _try_provider(file: ModelFile, provider: str, settings: Settings) -> Opened | None:
    try:
        return _open(file, [(NAMES[provider], {})], settings)
    except ProviderError as error:
        message = str(error).removesuffix(INSTEAD)
        if message not in _warned:
            _warned.add(message)
            _log().warning("%s; continuing without it", message)
        return None


def _log() -> logging.Logger:
    import logging  # slow to load, and a start on the CPU alone needs none

    return logging.getLogger(__name__)


def _usable(opened: Opened, provider: str) -> Opened:
    """Call a session once; if that fails, open it with fewer options until none is left."""
    while opened.again is not None:
        try:
            _runner(opened.session, provider)(sample_input(opened.session))
            break
        except Exception as error:  # each provider has its own kinds
            try:
                opened = opened.again(error)
            except ProviderError:  # the trial reports why it is excluded
                break
    return opened


def time_sessions(
    sessions: Mapping[str, _Session], references: Mapping[str, _Session] | None = None
) -> tuple[str, str]:
    """Time interleaved blocks of calls of sessions, by provider.

    One of them is `cpu`: its outputs are the reference, except for providers with their own in
    `references`, which run another form of the model.

    Returns:
        The fastest provider, and the human-readable reason.
    """
    frames = sample_input(sessions["cpu"])
    runs = {name: _runner(session, name) for name, session in sessions.items()}
    try:
        expected = runs["cpu"](frames)
    except Exception as error:  # whatever it is, the first call of the caller raises it
        return "cpu", f"no trial, cpu failed ({first_line(error, 100)})"
    if not np.isfinite(expected).all():
        return "cpu", "no trial, the model's answers are not numbers"
    right = {name: _runner(one, "cpu")(frames) for name, one in (references or {}).items()}
    running: dict[str, _Run] = {}
    notes: list[str] = []
    for name, run in runs.items():
        try:
            # The first calls compile and allocate; they are also what parity is read from.
            difference = float(np.abs(run(frames) - right.get(name, expected)).max())
            run(frames)
        except Exception as error:  # each provider has its own kinds
            notes.append(f"{name} failed ({first_line(error, 100)})")
            continue
        if difference <= PARITY:
            running[name] = run
        else:
            notes.append(f"{name} left out, its answers differ by {difference:.2g}")
    medians = {name: float("inf") for name in running}
    for _ in range(ROUNDS):
        for name, run in running.items():
            # The fastest block: other load on the machine only makes blocks slower.
            time.sleep(PAUSE)
            block = time_block(partial(run, frames), BLOCK)
            medians[name] = min(medians[name], float(np.median(block)))
    best = min(medians, key=lambda name: medians[name])
    figures = ", ".join(f"{name} {1000 * median:.2f} ms" for name, median in medians.items())
    reason = "; ".join([f"fastest here of {figures}", *notes])
    _log().info("provider %s: %s", best, reason)
    return best, reason


def time_block(
    call: Callable[[], object],
    seconds: float,
    min_calls: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Call once uncounted, then until `seconds` are over and `min_calls` made; return their times.

    The first call wakes the threads and refills the caches.
    """
    call()
    taken: list[float] = []
    start = clock()
    while True:
        before = clock()
        call()
        after = clock()
        taken.append(after - before)
        if len(taken) >= min_calls and after - start >= seconds:
            return taken


def sample_input(session: _Session) -> npt.NDArray[Any]:
    """Make a batch of coloured patches with noise, with the shape and type of a session's input.

    Random, but neither flat nor pure noise, so that wrong outputs do not agree by chance.
    """
    from catdog_edge.images.preprocess import to_layout

    one = session.get_inputs()[0]
    count, *shape = [size if isinstance(size, int) else 1 for size in one.shape]
    floats = one.type != "tensor(uint8)"
    height, width = shape[1:] if floats else shape[:2]
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (count, 4, 4, 3))
    tall, wide = -(-height // 4), -(-width // 4)
    smooth = patches.repeat(tall, axis=1).repeat(wide, axis=2)[:, :height, :width]
    frames = (smooth + random.integers(-32, 33, smooth.shape)).clip(0, 255).astype(np.uint8)
    return to_layout(frames, "nchw-float" if floats else "nhwc-uint8")


def _runner(session: _Session, provider: str) -> _Run:
    """Return a call of a session as a classifier makes it."""
    bound, name = bind(session, provider, [PROBABILITIES]), session.get_inputs()[0].name

    def run(frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        found = bound(frames) if bound else session.run([PROBABILITIES], {name: frames})
        return np.asarray(found[0], dtype=np.float32)

    return run


def _key(file: ModelFile, settings: Settings, candidates: Sequence[str]) -> str:
    """Digest what the choice depends on: model, versions, processor, GPU, settings."""
    import hashlib  # a start on the CPU alone does without these

    import onnxruntime

    from catdog_edge.runtime.providers import nvidia
    from catdog_edge.system.cpu import read_cpu
    from catdog_edge.system.version import __version__

    cpu = read_cpu()
    forms = dict.fromkeys(nvidia.model_for(file, name) for name in candidates) | {file: None}
    parts = [__version__, *(one.digest() for one in forms), onnxruntime.__version__]
    parts += [openvino.version(), cpu.name, *nvidia.NHWC, *nvidia.GRAPHS]
    parts += [*packages.versions(packages.RUNTIMES), *candidates, *cpu.features]
    if "cuda" in candidates:
        parts += nvidia.gpu_and_driver().values()
    return hashlib.sha256("\n".join([*parts, str(settings)]).encode()).hexdigest()[:32]


def cache_file() -> Path:
    """Return the file where choices are cached; see `cache_folder`."""
    return cache_folder() / "providers.json"


def _choices() -> dict[str, dict[str, str]]:
    """Read provider and reason by key; empty if the file is missing or damaged."""
    try:
        document = json.loads(cache_file().read_text(encoding="utf-8"))
        known = {key: one for key, one in document.items() if one["provider"] in NAMES}
        return {key: {**one, "reason": str(one["reason"])} for key, one in known.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, CatdogError):
        return {}


def _remember(key: str, provider: str, reason: str) -> None:
    """Cache a choice. If the cache cannot be written, the next start times again."""
    choices = _choices() | {key: {"provider": provider, "reason": reason}}
    kept = dict(list(choices.items())[-REMEMBERED:])
    with contextlib.suppress(CatdogError, ValueError):  # ValueError: no path at all
        write_text(cache_file(), json.dumps(kept, indent=1) + "\n")
