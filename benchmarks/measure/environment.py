"""The environment card: machine, versions, how busy it was; no name of a user, host or path."""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import gpu
from catdog_edge.system.cpu import read_cpu
from catdog_edge.system.packages import versions
from catdog_edge.system.threads import Threads, cgroup_quota, choose_threads, usable_processors

FLAGS = (
    "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "fphp",
)  # fmt: skip
"""CPU flags that decide how fast a convolution runs, in int8 and in float; x86 and ARM."""

PACKAGES = (
    "catdog-edge", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime",
    "onnxruntime-gpu", "onnxruntime-ep-openvino", "onnx", "torch", "torchvision", "openvino",
)  # fmt: skip

VARIABLES = (
    "CATDOG_EDGE_THREADS", "CATDOG_EDGE_AUTOTUNE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ORT_DISABLE_ALL",
)  # fmt: skip
"""Environment variables that change a measurement."""

# A run is noisy above these: the share of the usable processors that other processes take, and the
# quartile distance of a row's block medians over their median.
MAX_OTHERS, MAX_DRIFT = 0.10, 0.10
LOAD_PERIOD = 5.0  # seconds between two samples of the load average; the kernel updates it as often


@dataclass(frozen=True)
class Environment:
    """The card; docs/bench-json.md describes its fields."""

    processor: str
    architecture: str
    flags: tuple[str, ...]
    processors_shown: int
    processors_usable: int
    quota: float | None
    threads: int
    threads_source: str
    memory_bytes: int
    memory_available_bytes: int
    system: str
    hypervisor: bool
    governor: str | None
    python: str
    packages: dict[str, str]
    variables: dict[str, str]
    load_before: tuple[float, float, float]
    gpu: gpu.Gpu | None = None

    @classmethod
    def detect(cls, threads: Threads | None = None, root: Path = Path("/")) -> Environment:
        """Fill in the card; `threads` are those of the run, by default what the runtime chooses.

        `root` is where `proc` and `sys` are.
        """
        chosen = threads or choose_threads(None, root)
        memory = psutil.virtual_memory()
        cpu = read_cpu(root)
        governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        return cls(
            processor=f"{cpu.name} ({cpu.model})" if cpu.model else cpu.name,
            architecture=platform.machine(),
            flags=tuple(flag for flag in FLAGS if flag in cpu.flags),
            processors_shown=os.cpu_count() or 1,
            processors_usable=len(usable_processors()),
            quota=cgroup_quota(root),
            threads=chosen.count,
            threads_source=chosen.source,
            memory_bytes=_memory_limit(memory.total, root),
            memory_available_bytes=memory.available,
            system=f"{platform.system()} {platform.release()}{_distribution()}",
            hypervisor="hypervisor" in cpu.flags,
            governor=governor or None,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            packages=versions(PACKAGES),
            variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
            load_before=psutil.getloadavg(),
        )


def machine_of(card: Mapping[str, Any]) -> str:
    """Return what comparable runs share: processor, flags, usable processors, quota and system.

    `card` is an `Environment` as a dictionary, also as read back from JSON.
    """
    system = str(card["system"]).partition(" ")[0]
    quota = f", cgroup quota {card['quota']:g}" if card["quota"] else ""
    # Flags: virtual machines on one processor differ in what they may use of it.
    return (
        f"{card['processor']} ({card['architecture']}, {', '.join(card['flags'])}; "
        f"{card['processors_usable']} usable processors{quota}, {system})"
    )


@dataclass(frozen=True)
class Activity:
    """How busy the machine was during a measurement; see `quiet` in docs/bench-json.md."""

    seconds: float
    load_during: tuple[float, float]
    load_after: tuple[float, float, float]
    others_busy: float
    stolen: float
    throttled_s: float
    gpu: gpu.GpuActivity | None = None


class ActivityMonitor:
    """Monitors the rest of the machine from its creation until `stop`.

    `root` is where `sys` is; with `with_gpu` the driver of an NVIDIA GPU is read as well.
    """

    def __init__(self, root: Path = Path("/"), with_gpu: bool = False) -> None:
        self._root, self._with_gpu = root, with_gpu
        self._readings: list[gpu.Reading | None] = []
        self._loads = [psutil.getloadavg()[0]]
        self._stopped = threading.Event()
        threading.Thread(target=self._sample_load, name="load", daemon=True).start()
        self._start = time.monotonic()
        self._before = self._seconds()

    def stop(self) -> Activity:
        """Return the activity since the start."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._stopped.set()
        if self._with_gpu:  # of a short run the only reading
            self._readings.append(gpu.read())
        busy, stolen, throttled = (
            max(0.0, now - before)
            for now, before in zip(self._seconds(), self._before, strict=True)
        )
        return Activity(
            seconds=seconds,
            load_during=(sum(self._loads) / len(self._loads), max(self._loads)),
            load_after=psutil.getloadavg(),
            others_busy=busy / seconds,
            stolen=stolen / seconds,
            throttled_s=throttled,
            gpu=gpu.GpuActivity.of([one for one in self._readings if one is not None]),
        )

    def _sample_load(self) -> None:
        while not self._stopped.wait(LOAD_PERIOD):
            self._loads.append(psutil.getloadavg()[0])
            if self._with_gpu:
                self._readings.append(gpu.read())

    def _seconds(self) -> tuple[float, float, float]:
        """Return the usable processors' seconds since boot: used by others, stolen, throttled."""
        every, usable = psutil.cpu_times(percpu=True), usable_processors()
        if len(every) > len(usable):  # otherwise these are all that are online
            every = [times for number, times in enumerate(every) if number in usable]
        own = psutil.Process().cpu_times()  # with the children that have ended
        busy = stolen = 0.0
        for times in every:
            busy += times.user + times.system + getattr(times, "nice", 0.0)
            busy += getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
            stolen += getattr(times, "steal", 0.0)
        return busy - sum(own[:4]), stolen, self._throttled()

    def _throttled(self) -> float:
        """Return the seconds of throttling by a cgroup of version 2 or 1."""
        folder = self._root / "sys/fs/cgroup"
        text = _read(folder / "cpu.stat") + _read(folder / "cpu/cpu.stat")
        found = re.search(r"^throttled_(usec|time) (\d+)", text, re.MULTILINE)
        return 0.0 if found is None else int(found[2]) * (1e-6 if found[1] == "usec" else 1e-9)


def noise_reasons(
    card: Environment,
    activity: Activity,
    drifts: Iterable[tuple[str, float]] = (),
    unsettled: Sequence[str] = (),
) -> list[str]:
    """List the reasons to doubt the figures of a run; the last two are those of `Measurement`."""
    found, usable = [], card.processors_usable
    if activity.others_busy > MAX_OTHERS * usable:
        found.append(
            f"other processes took {activity.others_busy:.1f} of {usable} processors while "
            "measuring"
        )
    if activity.stolen > 0.02 * usable:
        found.append(f"the hypervisor took {activity.stolen:.2f} processors away while measuring")
    if activity.throttled_s > 0.01 * activity.seconds:
        found.append(f"a cgroup quota throttled the process for {activity.throttled_s:.1f} s")
    restless = sorted((drift, name) for name, drift in drifts if drift > MAX_DRIFT)
    if restless:
        worst, name = restless[-1]
        others = f" and {len(restless) - 1} more rows" if len(restless) > 1 else ""
        found.append(f"the time of {name}{others} varied by up to {worst:.0%} between rounds")
    if unsettled:
        found.append(f"warming up ended before the time of {', '.join(unsettled)} had settled")
    return found + gpu.gpu_noise_reasons(card.gpu, activity.gpu)


def _memory_limit(total: int, root: Path) -> int:
    for file in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(root / file).strip()
        if text.isdecimal() and int(text) < total:
            return int(text)
    return total


def _distribution() -> str:
    with suppress(OSError, AttributeError):
        return f", {platform.freedesktop_os_release().get('PRETTY_NAME', '')}".rstrip(", ")
    return f" {platform.mac_ver()[0]}" if sys.platform == "darwin" else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
