"""The CPU's name and instruction-set features, read from Linux's `/proc/cpuinfo`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX BF16",
    "asimd": "ARM NEON",
    "asimddp": "ARM dot product",
    "i8mm": "ARM int8 matrix",
    "bf16": "ARM BF16",
    "sve": "ARM SVE",
}
"""CPU flags that make int8 and bfloat16 fast: as Linux names them, and as people do."""


@dataclass(frozen=True)
class Cpu:
    """A CPU."""

    name: str  # for instance `AMD EPYC 7763`; the architecture where the system has no name
    model: str  # `family 25, model 1` on x86, otherwise empty
    flags: frozenset[str]  # as Linux names them; empty on other systems

    @property
    def features(self) -> tuple[str, ...]:
        """The common names of those `FEATURES` that it has."""
        return tuple(name for flag, name in FEATURES.items() if flag in self.flags)


def read_cpu(root: Path = Path("/")) -> Cpu:
    """Describe the CPU of this machine; `root` is where `proc` is.

    Examples:
        >>> read_cpu().features
        ('AVX2', 'AVX-512', 'AVX-512 VNNI')
    """
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    names = (fields.get(key) for key in ("model name", "Model", "Hardware", "cpu model"))
    name = next(filter(None, names), "") or platform.processor() or platform.machine() or "unknown"
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    model = ", ".join(numbers).removeprefix("cpu ") if len(numbers) == 2 else ""
    return Cpu(name, model, frozenset(flags))
