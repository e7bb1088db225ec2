"""TensorRT's engines: built once for a model and a GPU, which takes minutes, and kept.

An engine is for images of one shape, one image a call.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from catdog_edge.runtime.model_file import ModelFile
from catdog_edge.system import packages
from catdog_edge.system.files import cache_folder

BATCH = ("N", 1)
"""The free dimension of an exported graph, and what it is fixed to."""

log = logging.getLogger(__name__)


def machine(device_id: int = 0) -> dict[str, str]:
    """Return what an engine depends on besides the model; empty texts where it is unknown."""
    import onnxruntime

    return {
        "GPU": _gpu(device_id),
        "driver": _driver(),
        "TensorRT": _version(),
        "onnxruntime": onnxruntime.__version__,
    }


def engine_folder(file: ModelFile, machine: Mapping[str, str]) -> Path:
    """Return the folder with the engine of a model on a machine; it may not exist yet."""
    parts = [file.digest(), str(BATCH), *(f"{key} {value}" for key, value in machine.items())]
    return cache_folder() / "tensorrt" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def is_built(folder: Path) -> bool:
    """Whether an engine lies there."""
    return any(folder.glob("*.engine"))


def options(folder: Path, precision: str) -> dict[str, str]:
    """Options of the provider: engine and timings are kept in `folder`."""
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
    }


def prepare(file: ModelFile, folder: Path, device_id: int = 0) -> bool:
    """Return whether the engine is built; where it is not, make its folder and log what begins.

    Without TensorRT nothing begins.
    """
    here = machine(device_id)
    if is_built(folder) or not (here["GPU"] and here["TensorRT"]):
        return is_built(folder)
    with contextlib.suppress(OSError):  # then the engine is not kept
        folder.mkdir(parents=True, exist_ok=True)
    where = ", ".join(f"{key} {value}" for key, value in here.items() if value)
    log.warning(
        "tensorrt: building an engine of %s (%s), which takes minutes; it is kept in %s. To build "
        "it ahead: catdog-edge build %s --provider tensorrt",
        file.name,
        where,
        folder,
        file.shipped or file.path or "MODEL",
    )
    return False


def _gpu(device_id: int) -> str:
    """The name of a GPU, by the number that CUDA gives it in this process."""
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL("libcuda.so.1")
        if (
            not cuda.cuInit(0)
            and not cuda.cuDeviceGet(ctypes.byref(device), device_id)
            and not cuda.cuDeviceGetName(name, len(name), device)
        ):
            return name.value.decode(errors="replace")
    return ""


def _driver() -> str:
    version = ctypes.create_string_buffer(96)
    with contextlib.suppress(OSError, AttributeError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(version, len(version)):
            return version.value.decode(errors="replace")
    return ""


def _version() -> str:
    """TensorRT's version: of the library that is found, or of its package."""
    with contextlib.suppress(OSError, AttributeError):
        return str(ctypes.CDLL("libnvinfer.so.10").getInferLibVersion())
    return " ".join(packages.builds(("tensorrt", "tensorrt-cu12", "tensorrt-cu13")).values())
