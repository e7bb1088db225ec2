"""Determine how many CPUs are available to this process, and the source of that number."""

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
    """A number of threads, 1 or more, and its source, human-readable."""

    count: int
    source: str


def choose_threads(asked: int | None = None, root: Path = Path("/")) -> Threads:
    """Choose the number of threads of a session.

    The argument takes precedence, then `$CATDOG_EDGE_THREADS`; otherwise it is the smallest of
    the affinity mask, the physical cores in it and the cgroup quota: more threads would wait for
    each other. `root` is the folder of `proc` and `sys`.

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
            shown = reprlib.repr(named)
            raise CatdogError(f"{VARIABLE} is {shown}; set it to a number in 1..{MOST} or unset it")
        return Threads(int(named), f"${VARIABLE}")
    usable = usable_processors()
    found = Threads(len(usable), "the processors that this process may run on")
    cores = physical_cores(usable, root)
    if cores is not None and cores < found.count:
        found = Threads(cores, "the physical cores that this process may run on")
    quota = cgroup_quota(root)
    if quota is not None and quota < found.count:
        # Rounded down: with one thread too many all others wait for the throttled one.
        found = Threads(max(1, math.floor(quota)), f"the cgroup quota of {quota:g} processors")
    return found


def usable_processors() -> set[int]:
    """Return the numbers of the logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores(processors: set[int], root: Path = Path("/")) -> int | None:
    """Count the physical cores of some logical processors; `None` if unknown."""
    cores = set()
    for processor in processors:
        folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        try:
            package = (folder / "physical_package_id").read_text()
            core = (folder / "core_id").read_text()
            # Some ARM kernels give every processor the same core number; the list of siblings
            # tells their cores apart.
            siblings = folder / "thread_siblings_list"
            cores.add((package, siblings.read_text() if siblings.exists() else core))
        except OSError:
            return None
    return len(cores) or None


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the number of CPUs of the smallest cgroup quota; `None` without a quota.

    Reads version 1 and 2, of the process's own group and of every group above it. In a container
    the path of the group may not be visible; then the root of the mount is used.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (controllers, "cpu", "cpu,cpuacct") if controllers else ("", "unified"):
            top = root / "sys/fs/cgroup" / mount
            folder = top / group.strip("/")
            places = [place for place in (folder, *folder.parents) if place.is_relative_to(top)]
            quotas += [quota for quota in map(_quota, places) if quota is not None]
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    """Return the quota of one group, from the file of version 2 or those of version 1."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        granted = int(quota) / int(period)
        return granted if granted > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # `max` and -1 mean no quota
        return None
