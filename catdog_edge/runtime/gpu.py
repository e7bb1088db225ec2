"""Models on NVIDIA's GPUs: the form of a model and the options of a provider that suit it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from catdog_edge.errors import first_line
from catdog_edge.runtime import tensorrt
from catdog_edge.runtime.model_file import ModelFile, read_spec
from catdog_edge.runtime.providers import NAMES, Pairs

GPU = ("cuda", "tensorrt")

CHUNK = 256
"""Images per call of a session on a GPU."""

NHWC = {"prefer_nhwc": "1", "use_tf32": "1"}
GRAPHS = {"enable_cuda_graph": "1"}
TENSORRT_GRAPHS = {"trt_cuda_graph_enable": "1"}

ON = ("1", "True", "true")

FEATURES = {
    "prefer_nhwc": "NHWC",
    "enable_cuda_graph": "CUDA graphs",
    "trt_cuda_graph_enable": "CUDA graphs",
}


@dataclass(frozen=True)
class Attempt:
    """Providers with options to start a session with, and what they leave out of the best ones."""

    pairs: Pairs
    lacks: str = ""


def attempts(file: ModelFile, pairs: Pairs) -> list[Attempt]:
    """Return the options to try in turn, best first; an option that was given stays.

    Not every model can have every one: a graph of kernels is captured only where all of the
    model runs on the GPU, without control flow.
    """
    (name, given), *others = pairs
    if name == NAMES["cuda"]:
        ways = [
            (NHWC | GRAPHS, ""),
            (NHWC, "no CUDA graphs"),
            ({}, "neither CUDA graphs nor NHWC"),
        ]
    elif name == NAMES["tensorrt"]:
        machine = tensorrt.machine(int(given.get("device_id", 0)))
        folder = tensorrt.engine_folder(file, machine)
        precision = read_spec(str(file.path) if file.path else file.data).precision
        cached = tensorrt.options(folder, precision)
        ways = [(cached | TENSORRT_GRAPHS, ""), (cached, "no CUDA graphs")]
    else:
        return [Attempt(pairs)]
    found: dict[str, Attempt] = {}
    for options, lacks in ways:
        complete = options | given
        found.setdefault(str(sorted(complete.items())), Attempt([(name, complete), *others], lacks))
    return list(found.values())


def engine(file: ModelFile, pairs: Pairs) -> Callable[[], str] | None:
    """Announce the work on TensorRT's engine; return what says afterwards where it came from."""
    options = dict(pairs).get(NAMES["tensorrt"])
    if options is None:
        return None
    began = time.monotonic()
    folder = Path(options["trt_engine_cache_path"])
    if tensorrt.prepare(file, folder, int(options.get("device_id", 0))):
        return lambda: "engine from the cache"
    return lambda: f"engine built in {time.monotonic() - began:.0f} s"


def features(options: Mapping[str, str]) -> str:
    """Name what the options of a running provider amount to, TF32 in any case."""
    on = [name for key, name in FEATURES.items() if options.get(key) in ON]
    return ", ".join([*on, f"TF32 {'off' if options.get('use_tf32') == '0' else 'on'}"])


def captures(options: Mapping[str, str]) -> bool:
    """Whether a session with these options of its provider captures CUDA graphs."""
    return any(options.get(key) in ON for key in (*GRAPHS, *TENSORRT_GRAPHS))


def why_not(error: BaseException) -> str:
    """Say shortly why options do not suit a model."""
    text = first_line(error, 400)
    _, refused, reason = text.partition("graph capture feature as requested by the user")
    return (reason.strip().removeprefix("as ") if refused else text)[:160]


def suited(file: ModelFile, provider: str) -> ModelFile:
    """Return the form of a shipped model for a provider; any other file is taken as it is."""
    half = half_form(file.path) if file.shipped and provider in GPU else None
    return file if half is None else dataclasses.replace(file, path=half)


def half_form(path: Path | None) -> Path | None:
    """The fp16 file beside a file of the same model: `NAME.half.onnx`; `None` without one."""
    if path is None:
        return None
    half = path.with_name(f"{path.name.partition('.')[0]}.half.onnx")
    return half if half != path and half.is_file() else None


def better_form(path: Path | None, provider: str, precision: str) -> str:
    """Say which form is faster on a provider than a file of this precision; empty: none is."""
    if provider not in GPU or not precision.startswith("int8"):
        return ""
    half = half_form(path)
    better = f"{half.name} beside it" if half else "what catdog-edge export --for cuda makes"
    return f"int8 is slow on {provider}; faster is {better}"
