"""Models on NVIDIA GPUs: choose the form of a model and the options of a provider.

TensorRT builds an engine for a model and a GPU, which takes minutes; it is cached. An engine is
for images of one shape, one image per call.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from catdog_edge.errors import first_line
from catdog_edge.runtime.model_file import ModelFile, read_spec
from catdog_edge.runtime.onnxruntime_errors import unavailable
from catdog_edge.runtime.providers.start import GPU, NAMES, TENSORRT_BATCH, Pairs
from catdog_edge.system import packages
from catdog_edge.system.files import cache_folder

log = logging.getLogger(__name__)

NHWC = {"prefer_nhwc": "1", "use_tf32": "1"}
GRAPHS = {"enable_cuda_graph": "1"}
TENSORRT_GRAPHS = {"trt_cuda_graph_enable": "True"}  # TensorRT's flags take no "1"
OPTION_NAMES = {"prefer_nhwc": "NHWC", **dict.fromkeys(GRAPHS | TENSORRT_GRAPHS, "CUDA graphs")}
ON = ("1", "True", "true")


@dataclass(frozen=True)
class Attempt:
    """Providers with options for a session, and which of the best options they omit."""

    pairs: Pairs
    lacks: str = ""


def attempts(file: ModelFile, pairs: Pairs) -> list[Attempt]:
    """Return the options to try in turn, best first; options of the caller are kept.

    They are options of the first provider; TensorRT has a cache wherever it stands. Raises
    `ProviderError` if the `device_id` of TensorRT is not a number, or if it comes first and the
    file is int8: it quantizes activations symmetrically only, and finds that out in the build.

    Not every model supports all of them: a CUDA graph is captured only if the whole model runs on
    the GPU, without control flow.
    """
    tensorrt, cached = NAMES["tensorrt"], dict[str, str]()
    if tensorrt in dict(pairs):
        folder = engine_folder(file, tensorrt_machine(_device_id(dict(pairs)[tensorrt])))
        precision = read_spec(str(file.path) if file.path else file.data).precision
        if pairs[0][0] == tensorrt and precision.startswith("int8"):
            reason = f"{file.name} is {precision}, of which it builds no engine"
            raise unavailable("tensorrt", reason, f"take {_form_for_gpu(file.path)}")
        cached = tensorrt_options(folder, precision)
        pairs = [(name, cached | given if name == tensorrt else given) for name, given in pairs]
    (name, given), *others = pairs
    if name == NAMES["cuda"]:
        ways = [(NHWC | GRAPHS, ""), (NHWC, "no CUDA graphs"), ({}, "neither CUDA graphs nor NHWC")]
    else:
        ways = [(TENSORRT_GRAPHS, ""), ({}, "no CUDA graphs")]
    found: dict[str, Attempt] = {}
    for options, lacks in ways:
        complete = options | given
        found.setdefault(str(sorted(complete.items())), Attempt([(name, complete), *others], lacks))
    return list(found.values())


def engine_source(file: ModelFile, pairs: Pairs) -> Callable[[], str] | None:
    """Announce a build of a TensorRT engine; return a function that tells where it came from."""
    options = dict(pairs).get(NAMES["tensorrt"])
    if options is None:
        return None
    began, folder = time.monotonic(), Path(options["trt_engine_cache_path"])
    if any(folder.glob("*.engine")):
        return lambda: "engine from the cache"
    here = tensorrt_machine(_device_id(options))
    if here["GPU"] and here["TensorRT"]:  # without them no build starts
        with contextlib.suppress(OSError):  # then the engine is not cached
            folder.mkdir(parents=True, exist_ok=True)
        where = ", ".join(f"{key} {value}" for key, value in here.items() if value)
        log.warning(
            "tensorrt: building an engine of %s (%s), which takes minutes; it is kept in %s. To "
            "build it ahead: catdog-edge build %s --provider tensorrt",
            file.name,
            where,
            folder,
            file.shipped or file.path or "MODEL",
        )
    return lambda: f"engine built in {time.monotonic() - began:.0f} s"


def _device_id(options: Mapping[str, str]) -> int:
    """Return the number of the GPU for TensorRT; raises `ProviderError` if it is none."""
    given = options.get("device_id", "0")
    if not given.isdecimal():
        reason = f"device_id must be the number of a GPU, got {given!r}"
        raise unavailable("tensorrt", reason, "give 0 for the first one")
    return int(given)


def engine_folder(file: ModelFile, machine: Mapping[str, str]) -> Path:
    """Return the folder with the engine of a model on a machine; it may not exist yet."""
    parts = [file.digest(), str(TENSORRT_BATCH), *(f"{key} {machine[key]}" for key in machine)]
    return cache_folder() / "tensorrt" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def tensorrt_options(folder: Path, precision: str) -> dict[str, str]:
    """Return options of the provider that cache engine and timings in `folder`."""
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": str(precision == "fp16"),
    }


def gpu_and_driver(device_id: int = 0) -> dict[str, str]:
    """Return the names `GPU` and `driver`; empty strings if unknown."""
    here = {"GPU": _tell("cuDeviceGetName", device_id), "driver": ""}
    version = ctypes.create_string_buffer(96)
    with contextlib.suppress(OSError, AttributeError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(version, len(version)):
            here["driver"] = version.value.decode(errors="replace")
    return here


def pci_bus_id(device_id: int = 0) -> str:
    """Return the PCI address of a GPU, by which the driver finds it; empty if unknown.

    The driver's own numbers are in the order of these addresses, CUDA's are so only by request.
    """
    return _tell("cuDeviceGetPCIBusId", device_id)


def _tell(function: str, device_id: int) -> str:
    """Call a function of CUDA that writes a text about a device; return the text or ''."""
    device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")  # numbers devices as CUDA does in this process
        found = not (cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), device_id))
        if found and not getattr(cuda, function)(text, len(text), device):
            return text.value.decode(errors="replace")
    return ""


def tensorrt_machine(device_id: int = 0) -> dict[str, str]:
    """Return what an engine depends on besides the model; empty strings if unknown."""
    import onnxruntime

    try:
        tensorrt = str(ctypes.CDLL("libnvinfer.so.10").getInferLibVersion())
    except (OSError, AttributeError):
        builds = packages.versions(("tensorrt", "tensorrt-cu12", "tensorrt-cu13"))
        tensorrt = " ".join(builds.values())
    here = gpu_and_driver(device_id)
    return {**here, "TensorRT": tensorrt, "onnxruntime": onnxruntime.__version__}


def features(options: Mapping[str, str]) -> str:
    """List the features that the options of a running provider enable, including TF32."""
    on = [name for key, name in OPTION_NAMES.items() if options.get(key) in ON]
    return ", ".join([*on, f"TF32 {'off' if options.get('use_tf32') == '0' else 'on'}"])


def captures_graphs(options: Mapping[str, str]) -> bool:
    """Check whether a session with these options of its provider captures CUDA graphs."""
    return any(options.get(key) in ON for key in (*GRAPHS, *TENSORRT_GRAPHS))


def refusal(error: BaseException) -> str:
    """Return a short reason why options do not work for a model."""
    text = first_line(error, 400)
    _, refused, reason = text.partition("graph capture feature as requested by the user")
    return (reason.strip().removeprefix("as ") if refused else text)[:160]


def model_for(file: ModelFile, provider: str) -> ModelFile:
    """Return the form of a shipped model for a provider; any other file is returned unchanged."""
    half = fp16_file(file.path) if file.shipped and provider in GPU else None
    return file if half is None else dataclasses.replace(file, path=half)


def fp16_file(path: Path | None) -> Path | None:
    """Return the fp16 file next to a file of the same model, `NAME.half.onnx`, or `None`."""
    if path is None:
        return None
    half = path.with_name(f"{path.name.partition('.')[0]}.half.onnx")
    return half if half != path and half.is_file() else None


def faster_form(path: Path | None, provider: str, precision: str) -> str:
    """Return the form that is faster on a GPU than a file of this precision; empty if none."""
    if not precision.startswith("int8"):
        return ""
    return f"int8 is slow on {provider}; faster is {_form_for_gpu(path)}"


def _form_for_gpu(path: Path | None) -> str:
    half = fp16_file(path)
    return f"{half.name} beside it" if half else "what catdog-edge export --for cuda makes"
