"""How many threads this process may really use, and who said so.

Knows affinity, cgroup quotas and physical cores; knows nothing of ONNX Runtime. A device
or a container often shows more processors than it grants: threads beyond the grant wait
for each other.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path

from catdog_edge.errors import CatdogError

VARIABLE = "CATDOG_EDGE_THREADS"

MOST = 256
"""A larger number is a slip: thousands of threads that wait for each other stop a machine."""


@dataclass(frozen=True)
class Threads:
    """A number of threads.

    Attributes:
        count: 1 or more.
        source: What set it, in words for people.
    """

    count: int
    source: str


def choose_threads(asked: int | None = None, root: Path = Path("/")) -> Threads:
    """Choose the number of threads of a session.

    The argument wins, then `$CATDOG_EDGE_THREADS`; otherwise it is the smallest of the
    affinity mask, the physical cores in it and the cgroup quota.

    Args:
        asked: What the caller wants, or `None`.
        root: Where `proc` and `sys` are.

    Raises:
        ValueError: `asked` is not a positive integer.
        CatdogError: The variable is not a positive integer.
    """
    if asked is not None:
        try:
            count = 0 if isinstance(asked, bool) else operator.index(asked)  # NumPy's numbers, too
        except TypeError:
            count = 0
        if not 1 <= count <= MOST:
            raise ValueError(f"threads must be a whole number in 1..{MOST} or None, got {asked!r}")
        return Threads(count, "the argument")
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        # Python itself refuses to read thousands of digits.
        if not named.isdecimal() or len(named) > 9 or not 1 <= int(named) <= MOST:
            raise CatdogError(
                f"{VARIABLE} is {reprlib.repr(named)}; set it to a whole number in 1..{MOST}, or "
                "unset it"
            )
        return Threads(int(named), f"${VARIABLE}")
    usable = usable_processors()
    found = Threads(len(usable), "the processors that this process may run on")
    cores = physical_cores(usable, root)
    if cores is not None and cores < found.count:
        found = Threads(cores, "the physical cores that this process may run on")
    quota = cgroup_quota(root)
    if quota is not None and quota < found.count:
        # Part of a processor is left over on purpose: a thread too many is throttled, and
        # all others wait for it.
        found = Threads(max(1, math.floor(quota)), f"the cgroup quota of {quota:g} processors")
    return found


def usable_processors() -> set[int]:
    """Numbers of the logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores(processors: set[int], root: Path = Path("/")) -> int | None:
    """Number of different physical cores under some logical processors; `None`: not known."""
    cores = set()
    for processor in processors:
        folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        try:
            package = (folder / "physical_package_id").read_text().strip()
            core = (folder / "core_id").read_text().strip()
        except OSError:
            return None
        # Some ARM kernels give every processor the same core number -1 or 0 of one package;
        # then the list of siblings, which is always told, is what tells cores apart.
        try:
            siblings = (folder / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = ""
        cores.add((package, siblings or core))
    return len(cores) or None


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Processors that the tightest cgroup quota above this process grants; `None`: no quota.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`), of the process's own
    group and of every group above it. In a container the path of the group may not be
    visible; then its own root is what counts.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    mounts = root / "sys/fs/cgroup"
    quotas = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            tops = [mounts, mounts / "unified"]
            read = _quota_v2
        elif "cpu" in controllers.split(","):
            tops = [mounts / controllers, mounts / "cpu", mounts / "cpu,cpuacct"]
            read = _quota_v1
        else:
            continue
        for top in tops:
            folder = top / group.strip("/")
            for place in (folder, *folder.parents):
                if not place.is_relative_to(top):
                    break
                quota = read(place)
                if quota is not None:
                    quotas.append(quota)
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, _, period = (folder / "cpu.max").read_text().partition(" ")
        return None if quota.strip() == "max" else int(quota) / int(period or 100_000)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
