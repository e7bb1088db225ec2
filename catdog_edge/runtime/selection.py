"""What `auto` takes: the best provider that really starts, chosen by timing where it can be.

Knows which providers to try, nothing of how one is started (`providers`) or timed
(`autotune`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from catdog_edge.errors import ProviderError
from catdog_edge.runtime.model_file import ModelFile
from catdog_edge.runtime.providers import INSTEAD, NAMES, Opened, Settings, by_plugin, start

AUTO = ("cuda", "coreml", "openvino")
"""What `auto` tries before the CPU, best first. TensorRT builds an engine for minutes: it is
taken when it is asked for by name."""

AUTOTUNE = "CATDOG_EDGE_AUTOTUNE"

_warned: set[str] = set()
_warned_lock = threading.Lock()


def offered() -> list[str]:
    """Short names of the providers that this installation offers besides the CPU, best first.

    Offered is not running: CUDA is offered by its build also where there is no GPU.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name in AUTO if NAMES[name] in available or by_plugin(NAMES[name])]


def open_best(file: ModelFile, settings: Settings) -> Opened:
    """Open a model with the best provider that really starts.

    Where there are several, a few calls of this model are timed, once, and the choice is
    remembered; see `autotune`. A provider that is offered and does not start is told in one
    warning per process.

    Raises:
        ModelError: The model cannot be loaded.
    """
    others = offered()
    cpu = [(NAMES["cpu"], dict[str, str]())]
    if not others:
        return Opened(start(file, cpu, settings), "cpu", "the only one that is installed")
    # Where there is a choice: a start on the CPU alone does without this.
    from catdog_edge.runtime import autotune

    tune = os.environ.get(AUTOTUNE, "1").strip() != "0"
    key = autotune.cache_key(file, settings, others) if tune else ""
    known = autotune.recall(key) if tune else None
    if known is not None:
        try:
            session = start(file, [(NAMES[known.provider], {})], settings)
        except ProviderError as error:
            _warn_once(error)
        else:
            return Opened(session, known.provider, f"{known.reason}, remembered")
    started = {}
    for name in others:
        try:
            started[name] = start(file, [(NAMES[name], {})], settings)
        except ProviderError as error:
            _warn_once(error)
        if started and not tune:
            return Opened(started[name], name, f"the first that starts ({AUTOTUNE}=0)")
    plain = start(file, cpu, settings)
    if not started:
        return Opened(plain, "cpu", f"{', '.join(others)} did not start")
    chosen = autotune.compare({"cpu": plain, **started})
    autotune.remember(key, chosen)
    session = plain if chosen.provider == "cpu" else started[chosen.provider]
    return Opened(session, chosen.provider, chosen.reason)


@contextlib.contextmanager
def told_plainly(say: Callable[[str], object]) -> Iterator[None]:
    """Within the block, hand what `open_best` warns of to `say`, for a command's own words.

    Warnings of other kinds go their way. For commands alone: Python's way of showing warnings
    belongs to the process, so what other threads warn of meanwhile is handed over, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, RuntimeWarning):
                say(" ".join(str(message).split()))
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _warn_once(error: ProviderError) -> None:
    """Say the first time in this process why `auto` goes on without a provider."""
    message = str(error).removesuffix(INSTEAD) + "; going on without it"
    with _warned_lock:
        if message in _warned:
            return
        _warned.add(message)
    # The line that is shown is the caller's, who made the Classifier.
    warnings.warn(message, RuntimeWarning, stacklevel=6)
