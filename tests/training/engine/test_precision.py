"""Which precision a training takes: by CPU, network and device, never by a stopwatch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.system.cpu import Cpu
from catdog_edge.training.engine.precision import autocast, choose_precision
from catdog_edge.training.models.registry import ARCHITECTURES, architecture

PLAIN = Cpu("any", "", frozenset({"avx2", "avx512f"}))
ZEN4 = Cpu("any", "", frozenset({"avx2", "avx512f", "avx512_bf16"}))
SAPPHIRE = Cpu("any", "", frozenset({"avx512_bf16", "amx_bf16"}))
SLOW_DEPTHWISE = ("mobilenet_v3_small", "efficientnet_b0")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bfloat16_is_for_cpus_that_compute_in_it_and_networks_that_gain(name: str) -> None:
    network = architecture(name).build(2)
    expected = "float32" if name in SLOW_DEPTHWISE else "bfloat16"
    assert choose_precision(network, "cpu", ZEN4)[0] == expected
    assert choose_precision(network, "cpu", SAPPHIRE)[0] == expected
    assert choose_precision(network, "cpu", PLAIN) == (
        "float32", "the CPU has no BF16 instructions",
    )  # fmt: skip


@pytest.mark.parametrize("computes", [True, False])
def test_bfloat16_is_for_gpus_that_compute_in_it(
    computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes)
    network = architecture("mobilenet_v3_small").build(2)
    chosen, _ = choose_precision(network, "cuda:1", ZEN4)
    assert chosen == ("bfloat16" if computes else "float32")


def test_the_reason_names_what_decided() -> None:
    network = architecture("edge_cnn").build(2)
    assert choose_precision(network, "cpu", ZEN4)[1] == "the CPU has AVX-512 BF16"
    assert choose_precision(network, "cpu", SAPPHIRE)[1] == "the CPU has AMX BF16"
    two_groups = torch.nn.Conv2d(2, 2, 3, groups=2)
    assert "depthwise" in choose_precision(two_groups, "cpu", ZEN4)[1]


def test_a_forward_pass_runs_in_the_precision() -> None:
    network, images = torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    for precision in ("float32", "bfloat16"):
        with autocast(torch.device("cpu"), precision):
            assert network(images).dtype == getattr(torch, precision)
