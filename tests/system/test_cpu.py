from __future__ import annotations

import platform
from pathlib import Path

import pytest

from catdog_edge.system.cpu import read_cpu

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu
"""

ARM = """processor\t: 0
Features\t: fp asimd asimddp i8mm
CPU part\t: 0xd0b

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""

MIPS = "system type\t: MediaTek MT7621\ncpu model\t: MIPS 1004Kc V2.15\n"


def machine(root: Path, text: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(text)
    return root


def test_an_x86_processor(tmp_path: Path) -> None:
    cpu = read_cpu(machine(tmp_path, X86))
    assert (cpu.name, cpu.model) == ("Intel(R) Xeon(R) Platinum 8481C", "family 6, model 143")
    assert cpu.features == ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX", "AMX int8")
    assert "hypervisor" in cpu.flags


@pytest.mark.parametrize(
    ("text", "name", "features"),
    [
        (ARM, "Raspberry Pi 5 Model B Rev 1.0", ("ARM NEON", "ARM dot product", "ARM int8 matrix")),
        (MIPS, "MIPS 1004Kc V2.15", ()),
    ],
)
def test_a_processor_of_another_kind(
    tmp_path: Path, text: str, name: str, features: tuple[str, ...]
) -> None:
    cpu = read_cpu(machine(tmp_path, text))
    assert (cpu.name, cpu.model, cpu.features) == (name, "", features)


def test_a_system_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    cpu = read_cpu(tmp_path)
    assert (cpu.name, cpu.model, cpu.features) == ("arm64", "", ())
