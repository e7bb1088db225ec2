"""Translate ONNX Runtime's errors to a reason and a remedy."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from catdog_edge.errors import ModelError, ProviderError
from catdog_edge.system import packages

INSTEAD = "; or take the provider cpu"  # the end of every message of a `ProviderError`

_NO_MEMORY = re.compile(
    "bad_alloc|[Ff]ailed to allocate|[Cc]annot allocate|out of memory|pthread_create failed"
    "|_ALLOC_FAILED|_ALLOCATION_FAILED"  # of cuBLAS and cuDNN
)

_REMEDIES = {
    "cuda": "install NVIDIA's driver and: pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": "install NVIDIA's driver, CUDA and TensorRT for it",
    "openvino": "it needs an Intel processor or GPU",
    "coreml": "it needs macOS",
}


class TooManyThreadsError(RuntimeError):
    """More threads call a session than can capture CUDA graphs; see `io_binding`."""


def is_runtime_error(error: Exception) -> bool:
    """Check whether an error comes from ONNX Runtime, which also raises built-in exceptions."""
    own = type(error).__module__.startswith("onnxruntime")
    return (
        own or type(error) is RuntimeError or isinstance(error, (MemoryError, TooManyThreadsError))
    )


def is_memory_error(error: Exception) -> bool:
    """Check whether ONNX Runtime, PyTorch or NumPy ran out of memory."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def loading_error(error: Exception, *, from_bytes: bool) -> tuple[str, str]:
    """Return the reason of an error in loading a model, and its remedy."""
    import onnxruntime

    message, here = str(error), onnxruntime.__version__
    version = f"onnxruntime {here}"
    newer = f"upgrade onnxruntime (here: {here}), or export the model again with an older opset"
    second = "its weights are in a second file"
    if is_memory_error(error):
        reason = "there is not enough memory to load it and start its threads"
        return reason, "free some, or take fewer threads"
    if found := re.search(r"Opset (\d+) is under development.*?till opset (\d+)", message, re.S):
        return f"it needs opset {found[1]}, {version} runs up to {found[2]}", newer
    if found := re.search(r"IR version: (\d+), max supported IR version: (\d+)", message):
        return f"it has IR version {found[1]}, {version} reads up to {found[2]}", newer
    if found := re.search(r"Could not find an implementation for (\S+) node", message):
        return f"{version} has no {found[1]} for what it asks", newer
    if found := re.search("(?i)protobuf parsing failed|No graph was found|(ORT model v)", message):
        what = "in ORT format" if found[1] else "an ONNX file"
        return f"it is damaged, cut short, or not {what}", "copy it again or export it again"
    external = "External initializer" in message or "External data" in message
    if from_bytes and (external or "model_path must not be empty" in message):
        return second, "give its path instead of its bytes"
    if found := re.search(r'External data path does not exist: "(.*?)"', message):
        return f"{second}, {found[1]}, which is not there", "copy it beside, under that name"
    if external:
        return f"{second}, which is cut short or another model's", "copy both files again"
    return f"{version} cannot load it ({_main_message(message)})", "export the model again"


def call_error(name: str, error: Exception, count: int, provider: str) -> ModelError:
    """Explain an error in running the model called `name` on `count` frames with a provider."""
    if is_memory_error(error):
        fewer = "give fewer frames at a time" if count > 1 else ""
        remedies = ["free some", fewer or "take fewer threads"]
        # A `MemoryError` is of the processor's memory.
        if provider in ("cuda", "tensorrt") and not isinstance(error, MemoryError):
            remedies = ["free some of the GPU's memory", fewer, "take the provider cpu"]
        remedy = ", or ".join(filter(None, remedies))
        return ModelError(f"{name}: there is not enough memory to run it; {remedy}")
    import onnxruntime

    at_once, or_less = "", ""
    if count > 1:
        at_once, or_less = f" on {count} frames", " or give one frame at a time"
    return ModelError(
        f"{name}: onnxruntime {onnxruntime.__version__} cannot run it{at_once} "
        f"({_main_message(str(error))}); export the model again{or_less}{cpu_remedy(provider)}"
    )


def cpu_remedy(provider: str) -> str:
    """Return the further remedy for a provider other than the CPU."""
    return "" if provider == "cpu" else " or take the provider cpu"


def unavailable(provider: str, reason: str, remedy: str) -> ProviderError:
    """Make the error for a provider that does not run on this machine."""
    return ProviderError(f"{provider} does not run here: {reason}; {remedy}{INSTEAD}")


def start_error(provider: str, message: str) -> ProviderError:
    """Explain why a provider, named by its short name, did not start.

    `message` is what ONNX Runtime raised; empty if it omitted the provider silently, as it does
    when a library of the provider is missing.
    """
    message = message or _library_error(provider)
    library = re.search(r"([\w.+-]+\.(?:so|dll|dylib)[\w.]*): cannot open shared object", message)
    if library:
        reason = f"the library {library[1]} failed to load"
    elif "no CUDA-capable device" in message or "CUDA failure 100" in message:
        reason = "there is no CUDA device"
    elif "driver version is insufficient" in message:
        reason = "the NVIDIA driver is too old"
    else:
        reason = _main_message(message) or "ONNX Runtime left it out without a reason"
    remedy = _REMEDIES.get(provider, "read ONNX Runtime's page about it")
    if provider == "openvino":
        remedy += f" and: {packages.install_command('openvino')}"
    return unavailable(provider, f"{reason} ({installed_build()})", remedy)


def installed_build() -> str:
    """Return the installed build of onnxruntime and its version, e.g. `onnxruntime 1.32.0`."""
    installed = packages.versions(packages.RUNTIMES)
    return " and ".join(f"{name} {version}" for name, version in installed.items())


def _library_error(provider: str) -> str:
    """Load a provider's library as ONNX Runtime does; return the loader's error or ''."""
    import onnxruntime

    ending = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    prefix = "" if sys.platform == "win32" else "lib"
    folder = Path(onnxruntime.__file__).parent / "capi"
    for part in ("shared", provider):
        file = folder / f"{prefix}onnxruntime_providers_{part}.{ending}"
        if file.is_file():
            try:
                ctypes.CDLL(str(file))
            except OSError as error:
                return str(error)
    return ""


def _main_message(message: str) -> str:
    """Strip source locations and error numbers from a message of ONNX Runtime."""
    text = re.sub(r"\S*onnxruntime_src\S*.*?\) (?=\S)", "", message, flags=re.DOTALL)
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(text.split()))
    text = re.sub(r"\S+\.(cc|h):\d+ (\S+ )?", "", text)
    text = re.sub(r"Non-zero status.* running (\w+) node\. .*Status Message: ", r"\1: ", text)
    return text[:200]
