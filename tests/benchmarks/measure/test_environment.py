"""The environment card, on this machine and on machines made of files."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

from benchmarks.measure import environment
from benchmarks.measure.environment import (
    Activity,
    ActivityMonitor,
    Environment,
    machine_of,
    noise_reasons,
)
from catdog_edge.runtime.threads import Threads

ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 asimddp i8mm
Hardware\t: BCM2835
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_the_card_of_this_machine_is_filled_in():
    card = Environment.detect()
    assert card.processor
    assert card.threads >= 1
    assert 1 <= card.processors_usable <= card.processors_shown
    assert card.threads_source
    assert card.packages["numpy"]
    document = card.to_dict()
    assert card.architecture in machine_of(document)
    assert os.uname().nodename not in {document["system"], document["processor"]}


def test_a_card_made_of_files(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(ARM)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8000000 kB\nMemAvailable: 5000000 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1073741824\n")
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("ondemand\n")
    card = Environment.detect(Threads(3, "a test"), tmp_path)
    assert card.processor == "Raspberry Pi 5 Model B Rev 1.0"
    assert card.flags == ("asimd", "asimddp", "i8mm")
    assert card.memory_bytes == 2**30  # the cgroup's limit, not the machine's
    assert card.memory_available_bytes == 5_000_000 * 1024
    assert card.governor == "ondemand"
    assert (card.threads, card.threads_source) == (3, "a test")
    assert not card.hypervisor


def _stat(folder, busy: int, steal: int) -> None:
    (folder / "proc/stat").write_text(f"cpu  {busy} 0 0 500 0 0 0 {steal} 0 0\n")


def test_the_watch_tells_others_from_itself(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    _stat(tmp_path, 1000, 10)
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 1\nthrottled_usec 1000000\n")
    watch = ActivityMonitor(tmp_path)
    time.sleep(0.2)
    _stat(tmp_path, 1000 + 100 * os.sysconf("SC_CLK_TCK"), 10 + 2 * os.sysconf("SC_CLK_TCK"))
    (tmp_path / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 9\nthrottled_usec 3500000\n")
    quiet = watch.stop()
    assert quiet.others_busy * quiet.seconds == pytest.approx(100, abs=1.0)
    assert quiet.stolen * quiet.seconds == pytest.approx(2, abs=0.05)
    assert quiet.throttled_s == pytest.approx(2.5)


def test_work_on_processors_that_are_not_ours_is_not_noise(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(environment, "usable_processors", lambda: {1, 2})
    hertz = os.sysconf("SC_CLK_TCK")

    def stat(elsewhere: int, ours: int) -> None:
        lines = [
            f"cpu  {elsewhere + 2 * ours} 0 0 0 0 0 0 0 0 0",
            f"cpu0 {elsewhere} 0 0 0 0 0 0 0",
        ]
        lines += [f"cpu{number} {ours} 0 0 0 0 0 0 0 0 0" for number in (1, 2)]
        (tmp_path / "proc/stat").write_text("\n".join(lines) + "\n")

    stat(1000, 1000)
    watch = ActivityMonitor(tmp_path)
    stat(1000 + 500 * hertz, 1000 + 10 * hertz)
    quiet = watch.stop()
    assert quiet.others_busy * quiet.seconds == pytest.approx(20, abs=1.0)


def test_own_work_is_not_charged_to_others():
    if not Path("/proc/stat").is_file():
        pytest.skip("this system has no /proc/stat")
    watch, own = ActivityMonitor(), time.process_time()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        sum(range(1000))
    own = time.process_time() - own
    quiet = watch.stop()
    # All processors could have been busy for all of the time, but for what this test used.
    most = quiet.seconds * (os.cpu_count() or 1) - own
    assert quiet.others_busy * quiet.seconds <= most + 0.1


def test_the_load_is_looked_at_all_the_while(monkeypatch):
    told = iter([1.0, 3.0, 2.0])
    looked = threading.Event()

    def load():
        value = next(told, None)
        if value is None:
            looked.set()
            return 2.0, 0.0, 0.0
        return value, 0.0, 0.0

    monkeypatch.setattr(environment, "LOAD_PERIOD", 0.001)
    monkeypatch.setattr(environment.os, "getloadavg", load)
    watch = ActivityMonitor()
    assert looked.wait(10)
    mean, highest = watch.stop().load_during
    assert mean == pytest.approx(2.0)
    assert highest == 3.0


CALM = Activity(
    seconds=60,
    load_during=None,
    load_after=None,
    others_busy=0.0,
    stolen=0.0,
    throttled_s=0.0,
)


def test_a_quiet_run_has_nothing_to_say():
    card = dataclasses.replace(
        Environment.detect(), load_before=(0.1, 0.1, 0.1), processors_usable=4
    )
    assert noise_reasons(card, CALM, [("model", 0.03)]) == []
    # What was at work before the start and is not any more, does not count.
    exported = dataclasses.replace(card, load_before=(3.0, 0.1, 0.1))
    assert noise_reasons(exported, CALM, [("model", 0.03)]) == []
    just = dataclasses.replace(CALM, others_busy=0.39, stolen=0.07)
    assert noise_reasons(card, just, [("model", 0.09)]) == []


def test_rows_that_did_not_settle_are_named():
    card = dataclasses.replace(
        Environment.detect(), load_before=(0.0, 0.0, 0.0), processors_usable=4
    )
    found = noise_reasons(card, CALM, [], ["model", "model.static"])
    assert found == ["warming up ended before the time of model, model.static had settled"]


@pytest.mark.parametrize(
    ("quiet", "load", "drift", "words"),
    [
        ({"others_busy": 1.5}, 0.0, 0.0, "other processes took 1.5 of 4"),
        ({"stolen": 0.3}, 0.0, 0.0, "hypervisor"),
        ({"throttled_s": 5.0}, 0.0, 0.0, "cgroup quota"),
        ({"others_busy": None}, 3.0, 0.0, "load average was 3.00"),
        ({}, 0.0, 0.4, "time of model wandered by up to 40%"),
        # Just beyond the limits that docs/bench.md tells.
        ({"others_busy": 0.41}, 0.0, 0.0, "other processes"),
        ({"stolen": 0.09}, 0.0, 0.0, "hypervisor"),
        ({}, 0.0, 0.11, "wandered by up to 11%"),
    ],
)
def test_each_kind_of_noise_is_named(quiet, load, drift, words):
    card = dataclasses.replace(
        Environment.detect(), load_before=(load, 0.0, 0.0), processors_usable=4
    )
    found = noise_reasons(card, dataclasses.replace(CALM, **quiet), [("model", drift)])
    assert len(found) == 1
    assert words in found[0]
