"""The environment card: on what machine, with which versions, and how quiet it was.

Knows processors, memory, load and package versions. Names no user, no host and no path.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence
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
"""Instructions that decide how fast a convolution runs, in int8 and in float; x86 and ARM."""

PACKAGES = (
    "catdog-edge", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime",
    "onnxruntime-gpu", "onnxruntime-ep-openvino", "onnx", "torch", "torchvision", "openvino",
)  # fmt: skip

VARIABLES = (
    "CATDOG_EDGE_THREADS", "CATDOG_EDGE_AUTOTUNE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ORT_DISABLE_ALL",
)  # fmt: skip
"""Settings from outside that change a measurement; told where they are set."""

BUSY = 0.10
"""A share of a usable processor taken by others above which a run is called noisy."""

LOOK = 5.0
"""Seconds between two looks at the load average; the system itself counts as often."""

DRIFT = 0.10
"""Distance of the quartiles of a row's block medians, over their median, that is noise."""


@dataclass(frozen=True)
class Environment:
    """The card.

    Attributes:
        processor: Its name.
        architecture: `x86_64`, `aarch64`, ...
        flags: Instructions out of `FLAGS` that it has.
        processors_shown: Logical processors that the system shows.
        processors_usable: Those that this process may run on.
        quota: Processors that a cgroup grants, or `None`.
        threads: The number of threads taken.
        threads_source: Where that number comes from, in words.
        memory_bytes: Memory of the machine, or the cgroup's limit where that is lower.
        memory_available_bytes: What was free at the start.
        system: Operating system and kernel.
        hypervisor: Whether it is a virtual machine, where that can be seen.
        governor: Frequency governor of the processor, or `None`.
        python: Version and implementation.
        packages: Version by package, of those that are installed.
        variables: Settings from outside, of those that are set.
        load_before: Load averages over 1, 5 and 15 minutes at the start.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def machine(self) -> str:
        """What two runs must share: processor with its instructions, usable cores, system."""
        return machine_of(self.to_dict())


def machine_of(card: dict[str, Any]) -> str:
    """`Environment.machine` of a card that was read back from JSON."""
    system = str(card["system"]).partition(" ")[0]
    quota = f", cgroup quota {card['quota']:g}" if card["quota"] else ""
    # Virtual machines of one processor differ in what they are allowed to use of it.
    return (
        f"{card['processor']} ({card['architecture']}, {', '.join(card['flags'])}; "
        f"{card['processors_usable']} usable processors{quota}, {system})"
    )


def look(threads: Threads | None = None, root: Path = Path("/")) -> Environment:
    """Fill in the card.

    Args:
        threads: The number of threads of the run; `None`: what the runtime chooses.
        root: Where `proc` and `sys` are.
    """
    chosen = threads or choose_threads(None, root)
    cpu = read_cpu(root)
    meminfo = _read(root / "proc/meminfo")
    return Environment(
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
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        or None,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=_packages(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        load_before=_load(),
    )


@dataclass(frozen=True)
class Quiet:
    """How quiet the machine was while something was measured.

    Attributes:
        seconds: How long it was watched.
        load_during: Mean and highest of the load averages over 1 minute, looked at every
            `LOOK` seconds; this process is in them.
        load_after: Load averages at the end; this process is in them.
        others_busy: Processors' worth of time that other processes took, on average;
            `None` where the system does not tell.
        stolen: The same, taken by the hypervisor for other guests.
        throttled_s: Seconds for which a cgroup quota held this process back.
    """

    seconds: float
    load_during: tuple[float, float] | None
    load_after: tuple[float, float, float] | None
    others_busy: float | None
    stolen: float | None
    throttled_s: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Watch:
    """Watches how busy the rest of the machine is, from when it is made until `stop`.

    Args:
        root: Where `proc` and `sys` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._loads: list[float] = []
        self._ended = threading.Event()
        threading.Thread(target=self._look_at_load, name="load", daemon=True).start()
        self._start = time.monotonic()
        self._own = _own_seconds()
        self._jiffies = self._ticks()
        self._throttled = self._throttle()

    def stop(self) -> Quiet:
        """What was seen; may be asked more than once."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._ended.set()
        loads = list(self._loads)
        others = stolen = None
        now = self._ticks()
        if now is not None and self._jiffies is not None:
            hertz = os.sysconf("SC_CLK_TCK")
            busy = (now[0] - self._jiffies[0]) / hertz - (_own_seconds() - self._own)
            others = max(0.0, busy / seconds)
            stolen = max(0.0, (now[1] - self._jiffies[1]) / hertz / seconds)
        return Quiet(
            seconds=seconds,
            load_during=(sum(loads) / len(loads), max(loads)) if loads else None,
            load_after=_load(),
            others_busy=others,
            stolen=stolen,
            throttled_s=max(0.0, self._throttle() - self._throttled),
        )

    def _look_at_load(self) -> None:
        while not self._ended.is_set():
            now = _load()
            if now is None:
                return
            self._loads.append(now[0])
            self._ended.wait(LOOK)

    def _ticks(self) -> tuple[int, int] | None:
        """Busy and stolen ticks since the machine started, of the usable processors.

        Work on processors that this process may not use does not touch it.
        """
        lines = [line.split() for line in _read(self._root / "proc/stat").splitlines()]
        counts = {line[0]: line[1:9] for line in lines if len(line) >= 9 and line[0][:3] == "cpu"}
        own = [counts.get(f"cpu{number}") for number in usable_processors()]
        # Where they are not told one by one, all of them together.
        chosen = own if all(own) else [counts.get("cpu")]
        busy = stolen = 0
        for fields in chosen:
            if fields is None:
                return None
            user, nice, system, _, _, interrupt, soft, steal = (int(field) for field in fields)
            busy += user + nice + system + interrupt + soft
            stolen += steal
        return busy, stolen

    def _throttle(self) -> float:
        text = _read(self._root / "sys/fs/cgroup/cpu.stat")
        found = re.search(r"^throttled_usec (\d+)", text, re.MULTILINE)
        if found:
            return int(found[1]) / 1e6
        text = _read(self._root / "sys/fs/cgroup/cpu/cpu.stat")
        found = re.search(r"^throttled_time (\d+)", text, re.MULTILINE)
        return int(found[1]) / 1e9 if found else 0.0


def noise(
    card: Environment,
    quiet: Quiet,
    drifts: Iterable[tuple[str, float]] = (),
    unsettled: Sequence[str] = (),
) -> list[str]:
    """Reasons to doubt the figures of a run, one sentence each; none where it was quiet.

    Args:
        card: The environment.
        quiet: What was seen while measuring.
        drifts: By row, `Summary.drift`.
        unsettled: Rows whose time still changed when warming up had to end.
    """
    found = []
    usable = card.processors_usable
    if quiet.others_busy is not None and quiet.others_busy > BUSY * usable:
        found.append(
            f"other processes took {quiet.others_busy:.1f} of {usable} processors while measuring"
        )
    if quiet.stolen is not None and quiet.stolen > 0.02 * usable:
        found.append(f"the hypervisor took {quiet.stolen:.2f} processors away while measuring")
    if quiet.throttled_s > 0.01 * quiet.seconds:
        found.append(f"a cgroup quota held the process back for {quiet.throttled_s:.1f} s")
    # Only where nothing better is known: it remembers for a minute what was at work before, as
    # the export that ended when the bench began.
    before = None if card.load_before is None else card.load_before[0]
    if quiet.others_busy is None and before is not None and before > 0.5 * usable:
        found.append(f"the load average was {before:.2f} before the start")
    restless = sorted(
        ((name, drift) for name, drift in drifts if drift > DRIFT), key=lambda pair: -pair[1]
    )
    if restless:
        name, worst = restless[0]
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
