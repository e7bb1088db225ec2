"""The environment card, on this machine and on machines made of files."""

from __future__ import annotations

import copy
import dataclasses
import os
import platform
import threading
import time
from pathlib import Path
from types import SimpleNamespace

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
from benchmarks.measure.gpu import Reading
from catdog_edge.system.threads import Threads

READING = Reading(
    clock_mhz=1980, memory_clock_mhz=2619, used_bytes=500, busy=0.0, slowdowns=(), processes={}
)

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
    document = dataclasses.asdict(card)
    if Path("/etc/os-release").is_file():
        assert platform.freedesktop_os_release()["PRETTY_NAME"] in card.system
    assert card.architecture in machine_of(document)
    assert os.uname().nodename not in {document["system"], document["processor"]}


def test_a_card_made_of_files(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(ARM)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1048576\n")
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("ondemand\n")
    card = Environment.detect(Threads(3, "a test"), tmp_path)
    assert card.processor == "Raspberry Pi 5 Model B Rev 1.0"
    assert card.flags == ("asimd", "asimddp", "i8mm")
    assert card.memory_bytes == 2**20  # the cgroup's limit, not the machine's
    assert card.memory_available_bytes > 2**20
    assert card.governor == "ondemand"
    assert (card.threads, card.threads_source) == (3, "a test")
    assert not card.hypervisor
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert Environment.detect(root=tmp_path).memory_bytes > 2**20


class Machine:
    """What psutil says of a machine whose processors work as the test wants."""

    def __init__(self, monkeypatch, processors=1, usable=(0,)) -> None:
        fields = ("user", "nice", "system", "irq", "softirq", "steal", "idle")
        self.times = [SimpleNamespace(**dict.fromkeys(fields, 7.0)) for _ in range(processors)]
        self.own = [0.0, 0.0, 0.0, 0.0, 0.0]
        process = SimpleNamespace(cpu_times=lambda: tuple(self.own))
        monkeypatch.setattr(environment.psutil, "Process", lambda: process)
        monkeypatch.setattr(
            environment.psutil, "cpu_times", lambda percpu: copy.deepcopy(self.times)
        )
        monkeypatch.setattr(environment, "usable_processors", lambda: set(usable))


def test_others_are_told_from_this_process_and_from_idle_time(tmp_path, monkeypatch):
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    throttled = tmp_path / "sys/fs/cgroup/cpu.stat"
    throttled.write_text("usage_usec 1\nthrottled_usec 1000000\n")
    machine = Machine(monkeypatch)
    monitor = ActivityMonitor(tmp_path)
    time.sleep(0.1)
    for field, seconds in (("user", 60), ("nice", 5), ("system", 20), ("irq", 3), ("softirq", 2)):
        setattr(machine.times[0], field, 7.0 + seconds)
    machine.times[0].steal += 2
    machine.times[0].idle += 1000
    machine.own = [10.0, 4.0, 5.0, 1.0, 99.0]  # and of ended children; waiting is no work
    throttled.write_text("usage_usec 9\nthrottled_usec 3500000\n")
    activity = monitor.stop()
    assert activity.seconds >= 0.1
    assert activity.others_busy * activity.seconds == pytest.approx(90 - 20)
    assert activity.stolen * activity.seconds == pytest.approx(2)
    assert activity.throttled_s == pytest.approx(2.5)


def test_a_cgroup_of_version_1_throttles_too(tmp_path, monkeypatch):
    folder = tmp_path / "sys/fs/cgroup/cpu"
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("nr_throttled 3\nthrottled_time 0\n")
    Machine(monkeypatch)
    monitor = ActivityMonitor(tmp_path)
    (folder / "cpu.stat").write_text("nr_throttled 3\nthrottled_time 1500000000\n")
    assert monitor.stop().throttled_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("processors", "usable", "seconds"), [(4, (1, 3), 2 + 4), (3, (0, 2, 3), 1 + 2 + 3)]
)
def test_work_on_processors_that_are_not_ours_is_not_noise(
    processors, usable, seconds, monkeypatch
):
    """Where one is offline, those that are listed are all that may be used."""
    machine = Machine(monkeypatch, processors, usable)
    monitor = ActivityMonitor()
    for number, times in enumerate(machine.times):
        times.user += number + 1
    activity = monitor.stop()
    assert activity.others_busy * activity.seconds == pytest.approx(seconds)


def test_own_work_is_not_charged_to_others():
    monitor, own = ActivityMonitor(), time.process_time()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        sum(range(1000))
    own = time.process_time() - own
    activity = monitor.stop()
    # All processors could have been busy for all of the time, but for what this test used.
    most = activity.seconds * (os.cpu_count() or 1) - own
    assert activity.others_busy * activity.seconds <= most + 0.1


def test_the_load_is_sampled_all_the_while(monkeypatch):
    values = iter([1.0, 3.0, 2.0])
    sampled = threading.Event()

    def load():
        value = next(values, None)
        if value is None:
            sampled.set()
        return value or 2.0, 0.0, 0.0

    monkeypatch.setattr(environment, "LOAD_PERIOD", 0.001)
    monkeypatch.setattr(environment.psutil, "getloadavg", load)
    monitor = ActivityMonitor()
    assert sampled.wait(10)
    mean, highest = monitor.stop().load_during
    assert mean == pytest.approx(2.0)
    assert highest == 3.0


def test_the_gpu_is_read_all_the_while_and_at_the_end(monkeypatch):
    readings = [READING, None, dataclasses.replace(READING, clock_mhz=1500)]
    wanted = threading.Event()

    def read():
        if len(readings) == 1:
            wanted.set()
        return readings.pop(0) if readings else READING

    monkeypatch.setattr(environment, "LOAD_PERIOD", 0.001)
    monkeypatch.setattr(environment.gpu, "read", read)
    assert ActivityMonitor().stop().gpu is None
    assert len(readings) == 3
    monitor = ActivityMonitor(with_gpu=True)
    assert wanted.wait(10)
    found = monitor.stop().gpu
    assert found.clock_mhz == (1500, 1980)
    assert found.readings >= 3


CALM = Activity(
    seconds=60,
    load_during=(0.0, 0.0),
    load_after=(0.0, 0.0, 0.0),
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
        ({}, 0.0, 0.4, "time of model varied by up to 40%"),
        # Just beyond the limits that docs/bench.md tells.
        ({"others_busy": 0.41}, 0.0, 0.0, "other processes"),
        ({"stolen": 0.09}, 0.0, 0.0, "hypervisor"),
        ({}, 0.0, 0.11, "varied by up to 11%"),
    ],
)
def test_each_kind_of_noise_is_named(quiet, load, drift, words):
    card = dataclasses.replace(
        Environment.detect(), load_before=(load, 0.0, 0.0), processors_usable=4
    )
    found = noise_reasons(card, dataclasses.replace(CALM, **quiet), [("model", drift)])
    assert len(found) == 1
    assert words in found[0]
