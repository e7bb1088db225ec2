"""The processor: its name, and the instructions that make int8 and bfloat16 fast.

Knows nothing of ONNX Runtime. Read from the system's own text files, so that nothing runs.
"""

from __future__ import annotations

import platform
import re
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
"""Flags as Linux names them, and as people do."""


def processor_name(root: Path = Path("/")) -> str:
    """The processor's name, for instance `AMD EPYC`; the architecture where it has none."""
    text = _cpuinfo(root)
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def processor_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Which of `FEATURES` the processor has, in people's words; empty where Linux does not tell."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for flag, name in FEATURES.items() if flag in flags)


def _cpuinfo(root: Path) -> str:
    try:
        return (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
