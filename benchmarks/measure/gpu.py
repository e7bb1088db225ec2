"""The GPU of the environment card, and readings of it: clocks, memory, who else uses it.

The driver is asked through `nvidia-ml-py` (module `pynvml`); without it the card holds what PyTorch
knows, and there are no readings. Imports torch for the card alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from catdog_edge.runtime.providers.nvidia import pci_bus_id

SLOWDOWNS = {
    0x08: "hardware slowdown", 0x20: "too hot", 0x40: "too hot (hardware)", 0x80: "power brake",
}  # fmt: skip
"""Bits of the driver's reasons for a lower clock that mean that figures are too low."""

READ_BEFORE = ("clock_mhz", "memory_clock_mhz", "used_bytes", "busy")  # of a `Reading`, in `Gpu`
MAX_BUSY = 0.10  # share of the time that others kept the GPU busy above which a run is noisy


@dataclass(frozen=True)
class Reading:
    """What the driver reported at one moment; `None`: this GPU or container does not report it.

    `used_bytes` is the memory in use by all processes, `busy` the share of the last second in
    which a kernel ran, `processes` has bytes by process id, as far as a container shows them.
    """

    clock_mhz: int | None
    memory_clock_mhz: int | None
    used_bytes: int | None
    busy: float | None
    slowdowns: tuple[str, ...]
    processes: dict[int, int | None]


@dataclass(frozen=True)
class Gpu:
    """The GPU that rows run on; from `clock_mhz` on as read before this process used it."""

    name: str
    memory_bytes: int | None
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    max_clock_mhz: int | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    used_bytes: int | None = None
    busy: float | None = None
    processes: int | None = None

    @classmethod
    def detect(cls) -> Gpu | None:
        """Describe the first GPU that this process sees; `None` where there is none."""
        import torch

        asked, now = _nvml(), read()
        if asked is not None and now is not None:
            nvml, handle = asked
            found = cls(
                name=str(nvml.nvmlDeviceGetName(handle)),
                memory_bytes=_memory(nvml, handle, "total"),
                driver=_query(nvml.nvmlSystemGetDriverVersion),
                max_clock_mhz=_query(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
                **{name: getattr(now, name) for name in READ_BEFORE},
                processes=len(now.processes),
            )
        elif torch.cuda.is_available():
            found = cls(torch.cuda.get_device_name(0), None)
        else:
            return None
        if found.memory_bytes is None and torch.cuda.is_available():
            found = replace(found, memory_bytes=torch.cuda.get_device_properties(0).total_memory)
        cudnn: Any = torch.backends.cudnn
        return replace(found, cuda=torch.version.cuda, cudnn=str(cudnn.version() or "") or None)


@dataclass(frozen=True)
class GpuActivity:
    """The GPU during a measurement: lowest and highest clock, and the share of slowed readings."""

    clock_mhz: tuple[int, int] | None
    readings: int
    slowed: dict[str, float]

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> GpuActivity | None:
        """Summarize readings; `None` without any."""
        if not readings:
            return None
        clocks = [one.clock_mhz for one in readings if one.clock_mhz is not None]
        return cls(
            clock_mhz=(min(clocks), max(clocks)) if clocks else None,
            readings=len(readings),
            slowed={
                reason: sum(reason in one.slowdowns for one in readings) / len(readings)
                for reason in sorted({reason for one in readings for reason in one.slowdowns})
            },
        )


def read() -> Reading | None:
    """Read the GPU now; `None` without `nvidia-ml-py`, driver or GPU. Opens no CUDA context."""
    asked = _nvml()
    if asked is None:
        return None
    nvml, handle = asked
    reasons = _query(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    rates = _query(nvml.nvmlDeviceGetUtilizationRates, handle)
    processes = _query(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return Reading(
        clock_mhz=_query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=_query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        used_bytes=_memory(nvml, handle, "used"),
        busy=None if rates is None else rates.gpu / 100,
        slowdowns=tuple(words for bit, words in SLOWDOWNS.items() if reasons & bit),
        processes={int(one.pid): one.usedGpuMemory for one in processes},
    )


def process_bytes(before: Reading | None, after: Reading | None) -> int | None:
    """Return the GPU memory that this process took between two readings, CUDA's context included.

    Allocators keep what they took, so at the end of a loop this is the peak. In a container the
    process may not be visible; then it is what all processes together use more than before.
    """
    if before is None or after is None:
        return None
    own = after.processes.get(os.getpid())
    if own is not None:
        return own
    if before.used_bytes is None or after.used_bytes is None:
        return None
    return max(0, after.used_bytes - before.used_bytes)


def gpu_noise_reasons(card: Gpu | None, activity: GpuActivity | None) -> list[str]:
    """List why figures from this GPU may be noisy or too low."""
    found = []
    if card is not None and card.busy is not None and card.busy > MAX_BUSY:
        found.append(f"the GPU was busy for {card.busy:.0%} of the time before the start")
    for reason, share in (activity.slowed if activity is not None else {}).items():
        found.append(f"the GPU lowered its clock for {share:.0%} of the time ({reason})")
    return found


def _nvml() -> tuple[Any, Any] | None:
    """Return the module `pynvml` and the handle of CUDA's first device."""
    try:
        import pynvml
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if not visible.isdecimal():
            return pynvml, pynvml.nvmlDeviceGetHandleByUUID(visible)
        # CUDA puts the fastest GPU first, the driver that of the lowest PCI address. Of one GPU it
        # is not asked: that starts CUDA, which takes long and belongs to the loading of a row.
        if pynvml.nvmlDeviceGetCount() > 1 and (address := pci_bus_id()):
            return pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(address.encode())
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(visible))
    return None


def _memory(nvml: Any, handle: Any, field: str) -> int | None:
    """Return `total` or `used` bytes; `None` where the GPU has no memory of its own, or for MIG."""
    found = _query(nvml.nvmlDeviceGetMemoryInfo, handle)
    return None if found is None else int(getattr(found, field))


def _query(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Query the driver; `None` for an unsupported query, such as of a part of a GPU (MIG)."""
    import pynvml

    with suppress(pynvml.NVMLError):
        return ask(*arguments)
    return None
