"""Options of the providers that run on NVIDIA's GPUs: the fastest first, and what to leave out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catdog_edge.errors import first_line
from catdog_edge.runtime.providers import NAMES, Pairs, short_name

GPU = ("cuda", "tensorrt")

CHUNK = 256
"""Images per call of a session on a GPU."""

NHWC = {"prefer_nhwc": "1", "use_tf32": "1"}
GRAPHS = {"enable_cuda_graph": "1"}

FEATURES = {"prefer_nhwc": "NHWC", "enable_cuda_graph": "CUDA graphs"}


@dataclass(frozen=True)
class Attempt:
    """Providers with options to start a session with, and what they leave out of the best ones."""

    pairs: Pairs
    lacks: str


def attempts(pairs: Pairs) -> list[Attempt]:
    """Return the options to try in turn, best first; an option that was given stays.

    Not every model can have every one: a graph of kernels is captured only where all of the
    model runs on the GPU, without control flow.
    """
    (name, given), *others = pairs
    if name != NAMES["cuda"]:
        return [Attempt(pairs, "")]
    found: dict[str, Attempt] = {}
    for options, lacks in (
        (NHWC | GRAPHS, ""),
        (NHWC, "no CUDA graphs"),
        ({}, "neither CUDA graphs nor NHWC"),
    ):
        complete = options | given
        found.setdefault(str(sorted(complete.items())), Attempt([(name, complete), *others], lacks))
    return list(found.values())


def features(options: Mapping[str, str]) -> str:
    """Name what the options of a running provider amount to, TF32 in any case."""
    on = [name for key, name in FEATURES.items() if options.get(key) == "1"]
    return ", ".join([*on, f"TF32 {'off' if options.get('use_tf32') == '0' else 'on'}"])


def captures(provider: str, options: Mapping[str, str]) -> bool:
    """Whether a session with these options of its provider captures CUDA graphs."""
    return provider in GPU and options.get("enable_cuda_graph") == "1"


def why_not(error: BaseException) -> str:
    """Say shortly why options do not suit a model."""
    text = first_line(error, 400)
    _, refused, reason = text.partition("graph capture feature as requested by the user")
    return (reason.strip().removeprefix("as ") if refused else text)[:160]


def short(pairs: Pairs) -> str:
    """The short name of the provider that comes first."""
    return short_name(pairs[0][0])
