"""How many threads: affinity, quota, cores, variable, argument."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catdog_edge.errors import CatdogError
from catdog_edge.system.threads import (
    cgroup_quota,
    choose_threads,
    physical_cores,
    usable_processors,
)


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(("value", "count"), [("1", 1), (" 256 ", 256)])
def test_the_bounds_of_the_variable(
    value: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_EDGE_THREADS", value)
    assert choose_threads().count == count


def test_argument_wins_over_variable_over_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choose_threads()
    assert 1 <= found.count <= len(usable_processors())
    monkeypatch.setenv("CATDOG_EDGE_THREADS", "7")
    assert (choose_threads().count, choose_threads().source) == (7, "$CATDOG_EDGE_THREADS")
    assert (choose_threads(3).count, choose_threads(3).source) == (3, "the argument")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "257"])
def test_a_wrong_variable_is_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CATDOG_EDGE_THREADS", value)
    with pytest.raises(CatdogError, match=f"CATDOG_EDGE_THREADS is '{value}'.*unset"):
        choose_threads()


def test_a_variable_of_thousands_of_digits_is_one_short_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CATDOG_EDGE_THREADS", "9" * 5000)
    with pytest.raises(CatdogError, match=r"CATDOG_EDGE_THREADS is '999.*unset") as caught:
        choose_threads()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_a_wrong_argument_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="threads must be"):
        choose_threads(value)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert choose_threads().count == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("count", "expected"), [(4, {0, 1, 2, 3}), (None, {0})])
def test_without_affinity_every_processor_counts(
    count: int | None, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_processors() == expected


def test_an_arm_kernel_that_numbers_all_cores_alike(tmp_path: Path) -> None:
    for processor in range(4):
        folder = f"sys/devices/system/cpu/cpu{processor}/topology"
        write(tmp_path, f"{folder}/physical_package_id", "0\n")
        write(tmp_path, f"{folder}/core_id", "0\n")
        write(tmp_path, f"{folder}/thread_siblings_list", f"{processor}\n")
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 4


def test_physical_cores_limit_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catdog_edge.system.threads.usable_processors", lambda: {0, 1, 2, 3})
    for processor in range(4):
        folder = f"sys/devices/system/cpu/cpu{processor}/topology"
        write(tmp_path, f"{folder}/physical_package_id", "0\n")
        write(tmp_path, f"{folder}/core_id", f"{processor // 2}\n")
    found = choose_threads(root=tmp_path)
    assert (found.count, "physical cores" in found.source) == (2, True)
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert "physical cores" in choose_threads(root=tmp_path).source
    write(tmp_path, "sys/fs/cgroup/cpu.max", "190000 100000\n")
    found = choose_threads(root=tmp_path)
    assert (found.count, found.source) == (1, "the cgroup quota of 1.9 processors")


def test_most_threads_are_256() -> None:
    assert (choose_threads(1).count, choose_threads(256).count) == (1, 256)
    with pytest.raises(ValueError, match=r"1\.\.256"):
        choose_threads(257)


def test_a_quota_of_version_2_counts_at_every_level(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "proc/self/cgroup", "0::/pod/box\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/pod/box/cpu.max", "400000 100000\n")
    assert cgroup_quota(tmp_path) == 4
    write(tmp_path, "sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    write(tmp_path, "sys/fs/cgroup/pod/cpu.max", "rubbish\n")
    assert cgroup_quota(tmp_path) == 4


def test_in_a_container_the_root_of_the_mount_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/../../somewhere/else\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert cgroup_quota(tmp_path) == 0.5


def test_a_quota_of_version_1_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "5:memory:/\n4:cpu,cpuacct:/docker/abc\n1:cpuset:/\n")
    folder = "sys/fs/cgroup/cpu,cpuacct"
    write(tmp_path, f"{folder}/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, f"{folder}/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, f"{folder}/docker/abc/cpu.cfs_quota_us", "300000\n")
    write(tmp_path, f"{folder}/docker/abc/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(tmp_path) == 3


def test_a_quota_below_one_still_gives_a_thread(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000\n")
    found = choose_threads(root=tmp_path)
    if len(usable_processors()) == 1:
        pytest.skip("one processor: the quota is not what decides")
    assert found.count == 1
    assert "quota of 0.5" in found.source


def test_two_hardware_threads_of_a_core_are_one_core(tmp_path: Path) -> None:
    for processor in range(4):
        folder = f"sys/devices/system/cpu/cpu{processor}/topology"
        write(tmp_path, f"{folder}/physical_package_id", "0\n")
        write(tmp_path, f"{folder}/core_id", f"{processor % 2}\n")
        write(tmp_path, f"{folder}/thread_siblings_list", f"{processor % 2},{processor % 2 + 2}\n")
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 2
    assert physical_cores({0, 2}, tmp_path) == 1
    assert physical_cores({0, 9}, tmp_path) is None


@pytest.mark.clock
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
def test_a_real_quota_counts() -> None:
    """Makes a control group with a quota of half a processor and asks from inside it."""
    import subprocess
    import sys

    group = Path(f"/sys/fs/cgroup/cpu/catdog-edge-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("50000")
    except OSError:
        pytest.skip("no writable cgroup of version 1 here")
    program = (
        f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()));"
        "from catdog_edge.system.threads import choose_threads; print(choose_threads())"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert "count=1" in done.stdout
        if len(usable_processors()) > 1:
            assert "quota of 0.5" in done.stdout
    finally:
        group.rmdir()
