"""Readings of a GPU: what they say of a run. With a GPU: that the driver gives them."""

from __future__ import annotations

import dataclasses
import os
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import GPU

from benchmarks.measure import gpu
from benchmarks.measure.gpu import GpuActivity, Reading, gpu_noise_reasons, process_bytes

CALM = Reading(
    clock_mhz=1980, memory_clock_mhz=2619, used_bytes=500, busy=0.0, slowdowns=(), processes={}
)


def test_memory_is_that_of_the_process_or_what_came_on_top():
    after = dataclasses.replace(CALM, used_bytes=900)
    assert process_bytes(CALM, after) == 400
    own = dataclasses.replace(after, processes={os.getpid(): 250, 1: 600})
    assert process_bytes(CALM, own) == 250
    hidden = dataclasses.replace(after, processes={os.getpid(): None})
    assert process_bytes(CALM, hidden) == 400
    assert process_bytes(None, None) is None
    unknown = dataclasses.replace(CALM, used_bytes=None)
    assert process_bytes(unknown, unknown) is None
    assert process_bytes(unknown, dataclasses.replace(own, used_bytes=None)) == 250


def test_clocks_and_slowdowns_are_summarized_and_judged():
    hot = dataclasses.replace(CALM, clock_mhz=1200, slowdowns=("too hot",))
    found = GpuActivity.of([CALM, CALM, hot, CALM])
    assert found == GpuActivity((1200, 1980), 4, {"too hot": 0.25})
    assert gpu_noise_reasons(GPU, found) == [
        "the GPU lowered its clock for 25% of the time (too hot)"
    ]
    busy = dataclasses.replace(GPU, busy=0.4)
    assert gpu_noise_reasons(busy, None) == [
        "the GPU was busy for 40% of the time before the start"
    ]
    assert gpu_noise_reasons(GPU, GpuActivity.of([CALM])) == []
    assert gpu_noise_reasons(None, None) == []
    assert GpuActivity.of([]) is None


class Refused(Exception):
    """What the driver raises where it does not tell."""


def test_a_driver_is_read_and_what_it_does_not_tell_is_none(monkeypatch):
    def refuse(*_asked):
        raise Refused

    driver = SimpleNamespace(
        NVMLError=Refused, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: f"card {number}",
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetHandleByPciBusId=lambda address: address.decode(),
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetName=lambda handle: f"Example of {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=900, used=500),
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2619}[kind],
        nvmlDeviceGetMaxClockInfo=refuse,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x01 | 0x08 | 0x40,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=25),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [
            SimpleNamespace(pid=7, usedGpuMemory=None)
        ],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slow = ("hardware slowdown", "too hot (hardware)")
    assert gpu.read() == Reading(1980, 2619, 500, 0.25, slow, {7: None})
    pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
    found = gpu.Gpu.detect()
    assert (found.name, found.memory_bytes, found.driver) == ("Example of card 0", 900, "580.1")
    assert (found.clock_mhz, found.busy, found.processes) == (1980, 0.25, 1)
    assert found.max_clock_mhz is None
    for visible, name in (("3,1", "Example of card 3"), ("GPU-x", "Example of GPU-x")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpu.Gpu.detect().name == name
    # Of several GPUs CUDA's first one need not be the driver's.
    driver.nvmlDeviceGetCount = lambda: 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for address, name in (("0000:65:00.0", "0000:65:00.0"), ("", "card 0")):
        monkeypatch.setattr(gpu, "pci_bus_id", lambda address=address: address)
        assert gpu.Gpu.detect().name == f"Example of {name}"
    # A GPU that shares the memory of the processor has none of its own to report.
    driver.nvmlDeviceGetMemoryInfo = refuse
    assert gpu.read().used_bytes is None
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (gpu.Gpu.detect().used_bytes, gpu.Gpu.detect().memory_bytes) == (None, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    of_torch = SimpleNamespace(total_memory=700)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _number: of_torch)
    assert gpu.Gpu.detect().memory_bytes == 700
    driver.nvmlInit = refuse
    assert gpu.read() is None


@pytest.mark.cuda
def test_the_driver_describes_the_card_and_the_memory_of_this_process():
    torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    torch.cuda.empty_cache()  # what earlier tests gave back would serve
    before = gpu.read()
    card = gpu.Gpu.detect()
    kept = torch.ones(64 * 2**20, device="cuda")  # 256 MiB
    after = gpu.read()
    assert card is not None
    assert card.name == torch.cuda.get_device_name(0)
    assert card.memory_bytes > 2**30
    assert card.driver
    assert card.clock_mhz
    hidden = after.processes.get(os.getpid()) is None  # then it is what all use more than before
    if hidden and (before.busy or before.processes):
        pytest.skip("other processes use this GPU, and their memory changes")
    assert process_bytes(before, after) >= kept.nbytes
