"""Depthwise convolutions with fast gradients on the CPU.

The forward pass is `conv2d`. oneDNN, as PyTorch 2.14 calls it, is slow with two gradients
(`docs/experiments.md` has the figures): that of 5x5 weights in any precision, and in bfloat16
that of the input, most of all with stride 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

LARGE = 5  # filters of this side are split into four 3x3 filters, which overlap in the middle


def is_depthwise(weight: torch.Tensor, maps: torch.Tensor, groups: int) -> bool:
    """Check whether a convolution has exactly one filter per channel."""
    return groups == maps.shape[1] == weight.shape[0] and weight.shape[1] == 1


def depthwise(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
) -> torch.Tensor:
    """Compute `conv2d` with one square filter per channel, its gradients equal up to rounding.

    The maps, `[N,C,H,W]`, are channels last; the weight is `[C,1,k,k]`, k odd, of the same dtype;
    the padding is at most k // 2.
    """
    result: torch.Tensor = _Depthwise.apply(maps, weight, bias, stride, padding)
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: int,
        padding: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(maps, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_maps = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps = _of_maps(gradient, maps, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            found = _of_weight(gradient, maps, weight, ctx.stride, ctx.padding)
            # In the weight's memory layout: DistributedDataParallel warns about another.
            of_weight = torch.empty_like(weight).copy_(found)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(weight.dtype)
        return of_maps, of_weight, of_bias, None, None


def _of_maps(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    side = weight.shape[2]
    if stride == 1:
        # A forward convolution with the flipped filter.
        return functional.conv2d(
            gradient, weight.flip(2, 3), None, 1, side - 1 - padding, 1, len(weight)
        )
    found = _backward(gradient.float(), maps.float(), weight.float(), stride, padding, True)
    return found.to(maps.dtype)


def _of_weight(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    if weight.shape[2] != LARGE:
        return _backward(gradient, maps, weight, stride, padding, False)
    padded = functional.pad(maps, (padding,) * 4) if padding else maps
    height, width = ((side - 1) * stride + 3 for side in gradient.shape[2:])
    small = weight[:, :, :3, :3].contiguous()
    whole = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for top in (0, 2):
        for left in (0, 2):
            part = padded[:, :, top : top + height, left : left + width]
            part = part.contiguous(memory_format=torch.channels_last)
            found = _backward(gradient, part, small, stride, 0, False)
            whole[:, :, top : top + 3, left : left + 3] = found
    return whole


def _backward(
    gradient: torch.Tensor,
    maps: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    padding: int,
    of_maps: bool,
) -> torch.Tensor:
    """Compute PyTorch's own gradient of a depthwise convolution: the maps' or the weights'."""
    places = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight))
    found: tuple[torch.Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, *places, [of_maps, not of_maps, False]
    )
    return found[0] if of_maps else found[1]
