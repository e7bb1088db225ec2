"""The precision of training: float32, or bfloat16 where that is faster.

It is chosen by rule, not by timing, so that a command and its seed give the same weights again. The
rule is what timed steps of all architectures showed (`docs/experiments.md`).
"""

from __future__ import annotations

import torch
from torch import nn

from catdog_edge.system.cpu import Cpu, read_cpu
from catdog_edge.training.models.efficientnet_lite import Conv2dSame

# CPU features with which a step takes about half the time in bfloat16.
BFLOAT16_FLAGS = {"amx_bf16": "AMX BF16", "avx512_bf16": "AVX-512 BF16"}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a forward pass runs at `float32` or `bfloat16`."""
    # A CUDA graph must not hold a cast that was cached outside of it.
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=precision == "bfloat16",
        cache_enabled=device.type != "cuda",
    )


def choose_precision(network: nn.Module, device: str, cpu: Cpu | None = None) -> tuple[str, str]:
    """Choose `float32` or `bfloat16` for a device (`cpu`, `cuda`, ...); return it and the reason.

    Examples:
        >>> precision, reason = choose_precision(network, "cpu")
    """
    if not device.startswith("cpu"):
        if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU computes in it"
        return "float32", "the GPU has no BF16 instructions"
    flags = (cpu or read_cpu()).flags
    feature = next((name for flag, name in BFLOAT16_FLAGS.items() if flag in flags), None)
    if feature is None:
        return "float32", "the CPU has no BF16 instructions"
    # oneDNN's gradients of depthwise convolutions are slow in bfloat16; Conv2dSame has its own.
    if any(
        isinstance(module, nn.Conv2d) and module.groups > 1 and not isinstance(module, Conv2dSame)
        for module in network.modules()
    ):
        return "float32", "depthwise convolutions are slow in bfloat16"
    return "bfloat16", f"the CPU has {feature}"
