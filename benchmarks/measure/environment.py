"""The environment card: machine, versions, and how busy the machine was while measuring.

It names no user, no host and no path. Read from `/proc` and `/sys` instead of through psutil,
which has neither cgroup limits nor the peak memory of a Linux process.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catdog_edge.runtime.threads import Threads, cgroup_quota, choose_threads, usable_processors
from catdog_edge.system.cpu import read_cpu

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

MAX_OTHERS = 0.10
"""Share of the usable processors taken by other processes above which a run is noisy."""

MAX_DRIFT = 0.10
"""Quartile distance of a row's block medians, over their median, above which a run is noisy."""

LOAD_PERIOD = 5.0
"""Seconds between two samples of the load average; the kernel updates it as often."""


@dataclass(frozen=True)
class Environment:
    """The card; docs/bench.md describes its fields."""

    processor: str
    architecture: str
    flags: tuple[str, ...]
    processors_shown: int
    processors_usable: int
    quota: float | None
    threads: int
    threads_source: str
    memory_bytes: int | None
    memory_available_bytes: int | None
    system: str
    hypervisor: bool
    governor: str | None
    python: str
    packages: dict[str, str]
    variables: dict[str, str]
    load_before: tuple[float, float, float] | None

    @classmethod
    def detect(cls, threads: Threads | None = None, root: Path = Path("/")) -> Environment:
        """Fill in the card.

        Args:
            threads: The number of threads of the run; `None`: what the runtime chooses.
            root: Where `proc` and `sys` are.
        """
        chosen = threads or choose_threads(None, root)
        meminfo = _read(root / "proc/meminfo")
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
            memory_bytes=_memory_limit(_kilobytes(meminfo, "MemTotal"), root),
            memory_available_bytes=_kilobytes(meminfo, "MemAvailable"),
            system=f"{platform.system()} {platform.release()}{_distribution()}",
            hypervisor="hypervisor" in cpu.flags,
            governor=governor or None,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            packages=_packages(),
            variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
            load_before=_load(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def machine_of(card: Mapping[str, Any]) -> str:
    """What two comparable runs share: processor, flags, usable processors, quota and system.

    Args:
        card: `Environment.to_dict()`, or the same read back from JSON.
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
    """How busy the machine was during a measurement; see `quiet` in docs/bench.md."""

    seconds: float
    load_during: tuple[float, float] | None
    load_after: tuple[float, float, float] | None
    others_busy: float | None
    stolen: float | None
    throttled_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


class ActivityMonitor:
    """Monitors the rest of the machine from its creation until `stop`.

    Args:
        root: Where `proc` and `sys` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._loads: list[float] = []
        self._stopped = threading.Event()
        threading.Thread(target=self._sample_load, name="load", daemon=True).start()
        self._start = time.monotonic()
        self._own = _own_seconds()
        self._ticks_before = self._ticks()
        self._throttled_before = self._throttled()

    def stop(self) -> Activity:
        """Return the activity since the start."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._stopped.set()
        loads = list(self._loads)
        others = stolen = None
        before, now = self._ticks_before, self._ticks()
        if now is not None and before is not None:
            hertz = os.sysconf("SC_CLK_TCK")
            busy = (now[0] - before[0]) / hertz - (_own_seconds() - self._own)
            others = max(0.0, busy / seconds)
            stolen = max(0.0, (now[1] - before[1]) / hertz / seconds)
        return Activity(
            seconds=seconds,
            load_during=(sum(loads) / len(loads), max(loads)) if loads else None,
            load_after=_load(),
            others_busy=others,
            stolen=stolen,
            throttled_s=max(0.0, self._throttled() - self._throttled_before),
        )

    def _sample_load(self) -> None:
        while not self._stopped.is_set():
            now = _load()
            if now is None:
                return
            self._loads.append(now[0])
            self._stopped.wait(LOAD_PERIOD)

    def _ticks(self) -> tuple[int, int] | None:
        """Busy and stolen ticks of the usable processors since boot; work on others is no noise."""
        lines = [line.split() for line in _read(self._root / "proc/stat").splitlines()]
        counts = {line[0]: line[1:9] for line in lines if len(line) >= 9 and line[0][:3] == "cpu"}
        own = [counts.get(f"cpu{number}") for number in usable_processors()]
        busy = stolen = 0
        # Where they are not listed one by one, all of them together.
        for fields in own if all(own) else [counts.get("cpu")]:
            if fields is None:
                return None
            user, nice, system, _, _, interrupt, soft, steal = (int(field) for field in fields)
            busy += user + nice + system + interrupt + soft
            stolen += steal
        return busy, stolen

    def _throttled(self) -> float:
        """Seconds of throttling by a cgroup of version 2 or 1."""
        for file, key, unit in (
            ("cpu.stat", "throttled_usec", 1e-6),
            ("cpu/cpu.stat", "throttled_time", 1e-9),
        ):
            text = _read(self._root / "sys/fs/cgroup" / file)
            if found := re.search(rf"^{key} (\d+)", text, re.MULTILINE):
                return int(found[1]) * unit
        return 0.0


def noise_reasons(
    card: Environment,
    activity: Activity,
    drifts: Iterable[tuple[str, float]] = (),
    unsettled: Sequence[str] = (),
) -> list[str]:
    """List the reasons to doubt the figures of a run, one sentence each.

    Args:
        card: The environment.
        activity: Of the machine while measuring.
        drifts: By row, `Summary.drift`.
        unsettled: Rows whose time still changed when warming up had to end.
    """
    found = []
    usable = card.processors_usable
    if activity.others_busy is not None and activity.others_busy > MAX_OTHERS * usable:
        found.append(
            f"other processes took {activity.others_busy:.1f} of {usable} processors while "
            "measuring"
        )
    if activity.stolen is not None and activity.stolen > 0.02 * usable:
        found.append(f"the hypervisor took {activity.stolen:.2f} processors away while measuring")
    if activity.throttled_s > 0.01 * activity.seconds:
        found.append(f"a cgroup quota throttled the process for {activity.throttled_s:.1f} s")
    # Only where nothing better is known: the load average still contains what ended a minute
    # before the start, such as an export.
    before = None if card.load_before is None else card.load_before[0]
    if activity.others_busy is None and before is not None and before > 0.5 * usable:
        found.append(f"the load average was {before:.2f} before the start")
    restless = sorted((drift, name) for name, drift in drifts if drift > MAX_DRIFT)
    if restless:
        worst, name = restless[-1]
        others = f" and {len(restless) - 1} more rows" if len(restless) > 1 else ""
        found.append(f"the time of {name}{others} wandered by up to {worst:.0%} between rounds")
    if unsettled:
        listed = ", ".join(unsettled)
        found.append(f"warming up ended before the time of {listed} had settled")
    return found


def _kilobytes(meminfo: str, key: str) -> int | None:
    found = re.search(rf"^{key}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _memory_limit(total: int | None, root: Path) -> int | None:
    for file in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(root / file).strip()
        if text.isdecimal() and (total is None or int(text) < total):
            return int(text)
    return total


def _distribution() -> str:
    with suppress(OSError, AttributeError):
        return f", {platform.freedesktop_os_release().get('PRETTY_NAME', '')}".rstrip(", ")
    return f" {platform.mac_ver()[0]}" if sys.platform == "darwin" else ""


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _load() -> tuple[float, float, float] | None:
    with suppress(OSError, AttributeError):
        return os.getloadavg()
    return None


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
