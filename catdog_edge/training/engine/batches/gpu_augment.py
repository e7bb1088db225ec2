"""Augmentation of batches of images on a device: what `augment` does, drawn by the same code.

Resizes and blurs are products of an image with a matrix for its rows and one for its columns, so
that each image of a batch has its own. Values agree with OpenCV's up to its rounding; noise is
drawn by PyTorch, and so another one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from catdog_edge.training.array_types import Float64, Labels
from catdog_edge.training.data.negatives import Choice
from catdog_edge.training.engine.batches import augment
from catdog_edge.training.engine.device import send

CUBIC = -0.75  # OpenCV's and PyTorch's parameter of cubic interpolation


@torch.no_grad()
def augment_tensor(pixels: torch.Tensor, draws: augment.Draws | None) -> torch.Tensor:
    """Apply the drawn augmentations to each image.

    Args:
        pixels: `uint8 [N,H,W,3]`, BGR; not modified.
        draws: Of `draw`, for images of this size; `None` returns the same tensor.

    Returns:
        `uint8 [N,H,W,3]`, BGR, on the same device.
    """
    if draws is None or not len(pixels):
        return pixels
    device, (height, width) = pixels.device, pixels.shape[1:3]
    images = _planes(pixels)
    _change(images, draws.far, lambda some, rows: _far_away(some, draws.places[rows]))
    images = _warp(images, send(_relative(draws.maps, height, width), device), draws.reflected)
    grey = np.tile(np.c_[np.broadcast_to(augment.LUMA, (3, 3)), np.zeros(3)], (len(images), 1, 1))
    _change(images, draws.grey, lambda some, rows: _recolour(some, send(grey[rows], device)))
    if len(draws.colours):
        images = _whole(_recolour(images, send(draws.colours, device)))
    _change(images, draws.blur, lambda some, rows: _blur(some, _kernels(draws.blur[rows])))
    _change(images, draws.noise, _noise(draws.noise, draws.seeds))
    _change(images, draws.erased, lambda some, rows: _erase(some, draws.amounts[rows]))
    sigmas = draws.defocus * min(height, width)
    _change(images, draws.defocus, lambda some, rows: _blur(some, _defocus(sigmas[rows])))
    noise = _noise(draws.dark_noise, draws.dark_seeds)

    def darken(some: torch.Tensor, rows: Labels) -> torch.Tensor:
        light = send(draws.light[rows], device)[:, None, None, None]
        return noise(_whole(some * light), rows)

    _change(images, draws.light, darken)
    return _pixels(images)


@torch.no_grad()
def resize_tensor(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize `uint8 [N,H,W,3]`, by areas where they become smaller, else linearly."""
    tall, wide = pixels.shape[1:3]
    kind = "area" if height < tall else "linear"
    rows, columns = (
        _resizing(kind, old, new, pixels.device) for old, new in ((tall, height), (wide, width))
    )
    return _pixels(_whole(_resample(_planes(pixels), rows, columns)))


@torch.no_grad()
def grow_tensor(pixels: torch.Tensor, chosen: list[Choice]) -> torch.Tensor:
    """Grow the chosen parts of `uint8 [N,H,W,3]` to whole frames, see `Choice`."""
    part = np.array([one.height > 0 for one in chosen])
    if not part.any():
        return pixels
    images = _planes(pixels)
    boxes = np.array([one[2:] for one in chosen])

    def grow(some: torch.Tensor, rows: Labels) -> torch.Tensor:
        top, left, tall, wide, times = send(boxes[rows], pixels.device).T
        height, width = some.shape[2:]
        return _resample(
            some, _growing(top, tall, times, height), _growing(left, wide, times, width)
        )

    _change(images, part, grow)
    return _pixels(images)


def _planes(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).contiguous().float()


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _whole(images: torch.Tensor) -> torch.Tensor:
    """Round to the levels that an image of uint8 has."""
    return images.round_().clamp_(0, 255)


def _change(
    images: torch.Tensor,
    those: npt.NDArray[Any],
    change: Callable[[torch.Tensor, Labels], torch.Tensor],
) -> None:
    """Change the images whose value is not 0, in place; the values are on the host."""
    rows = np.flatnonzero(those)
    if len(rows):
        places = send(rows, images.device)
        images.index_copy_(0, places, _whole(change(images[places], rows)))


def _relative(maps: Float64, height: int, width: int) -> Float64:
    """Turn maps of pixels into maps of -1..1, from the first pixel's centre to the last's."""
    middle = (np.array([width, height]) - 1) / 2
    half = np.maximum(middle, 0.5)
    relative = maps / half[None, :, None]
    relative[:, :, 2] += (maps[:, :, :2] @ middle - middle) / half
    relative[:, :, :2] *= half
    return np.asarray(relative)


def _warp(images: torch.Tensor, maps: torch.Tensor, reflected: bool) -> torch.Tensor:
    """Warp `float32 [N,3,H,W]` by relative maps `[N,2,3]` from target to source."""
    y, x = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:])
    maps = maps[:, None, None]
    grid = torch.addcmul(
        torch.addcmul(maps[..., 2], maps[..., 1], y[:, None, None]), maps[..., 0], x[:, None]
    )
    border = "reflection" if reflected else "zeros"
    return _whole(functional.grid_sample(images, grid, padding_mode=border, align_corners=True))


def _recolour(images: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(colours[:, :, 3:], colours[:, :, :3], images.flatten(2)).view_as(images)


def _noise(deviations: Float64, seeds: Labels) -> Callable[[torch.Tensor, Labels], torch.Tensor]:
    def add(images: torch.Tensor, rows: Labels) -> torch.Tensor:
        generator = torch.Generator(images.device).manual_seed(int(seeds[rows[0]]))
        noise = torch.empty_like(images).random_(0, 256, generator=generator)
        gains = send(deviations[rows] / augment.NOISE_DEVIATION, images.device)[:, None, None, None]
        return images + (noise - 127.5) * gains

    return add


def _erase(images: torch.Tensor, amounts: Float64) -> torch.Tensor:
    boxes = send(np.stack(augment.erased_boxes(amounts, *images.shape[2:])), images.device)
    return images.masked_fill(_inside(images, boxes), augment.ERASED)


def _inside(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return which pixels are in the box of each image, `bool [N,1,H,W]`, for boxes `[4,N]`."""
    y, x = (torch.arange(side, device=images.device) for side in images.shape[2:])
    top, left, below, right = boxes[:, :, None].unbind()
    rows, columns = (y >= top) & (y < below), (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None])[:, None]


def _far_away(images: torch.Tensor, places: Float64) -> torch.Tensor:
    device, (height, width) = images.device, images.shape[2:]
    top, left, tall, wide = send(np.stack(augment.far_boxes(places, height, width)), device)
    small = _resample(images, _shrinking(top, tall, height), _shrinking(left, wide, width))
    colours, turned = (send(places[:, axis] < 0.5, device)[:, None, None] for axis in (3, 4))
    few = _resample(
        images, *(_resizing("area", side, 4, device) for side in (height, width))
    ).round_()
    few = torch.where(turned[:, None], few.flip(2, 3), few)
    behind = _resample(few, *(_resizing("linear", 4, side, device) for side in (height, width)))
    inside = _inside(images, torch.stack([top, left, top + tall, left + wide]))
    return torch.where(inside | ~colours[:, None], small, behind)


def _resample(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Multiply `[N,3,H,W]` by `[h,H]` or `[N,h,H]` and `[w,W]` or `[N,w,W]`: `[N,3,h,w]`."""
    rows, columns = (one if one.ndim == 2 else one[:, None] for one in (rows, columns))
    return rows @ images @ columns.transpose(-1, -2)


@lru_cache(maxsize=64)
def _resizing(kind: str, old: int, new: int, device: torch.device) -> torch.Tensor:
    """Return the matrix `[new,old]` that resizes by areas or linearly."""
    scale = old / new
    source, target = np.arange(old), np.arange(new)[:, None]
    if kind == "area":
        low, high = target * scale, (target + 1) * scale
        weights = np.clip(np.minimum(high, source + 1) - np.maximum(low, source), 0, None) / scale
    else:
        middle = np.clip((target + 0.5) * scale - 0.5, 0, old - 1)
        weights = np.clip(1 - np.abs(middle - source), 0, None)
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def _shrinking(start: torch.Tensor, length: torch.Tensor, side: int) -> torch.Tensor:
    """Return matrices `[N,side,side]`: by areas to a length from a start, reflected beyond it."""
    source = torch.arange(side, device=start.device)
    start, length = start[:, None], length[:, None]
    place = (source - start) % (2 * length)
    place = torch.where(place < length, place, 2 * length - 1 - place)[:, :, None]
    scale = (side / length)[:, :, None]
    low, high = place * scale, (place + 1) * scale
    return (torch.minimum(high, source + 1) - torch.maximum(low, source)).clamp_(min=0) / scale


def _growing(
    start: torch.Tensor, length: torch.Tensor, times: torch.Tensor, side: int
) -> torch.Tensor:
    """Return matrices `[N,side,side]`: cubically from a part, mirrored `times` times, to all."""
    source = torch.arange(side, device=start.device)
    start, length, times = start[:, None], length[:, None], times[:, None]
    place = (source + 0.5) * (times * length / side) % (2 * length)
    place = torch.minimum(place, 2 * length - place) - 0.5
    distance = (place[:, :, None] - (source - start)[:, None]).abs()
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance.square() + 1
    beyond = CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, beyond, 0.0))
    weights = weights * ((source >= start) & (source < start + length))[:, None]
    return weights / weights.sum(2, keepdim=True)


def _kernels(sides: Labels) -> list[Any]:
    return [cv2.getGaussianKernel(int(side), 0) for side in sides]


def _defocus(sigmas: Float64) -> list[Any]:
    """Return the kernels that OpenCV uses for uint8 images."""
    sides = np.round(sigmas * 6 + 1).astype(int) | 1
    return [cv2.getGaussianKernel(int(side), sigma) for side, sigma in zip(sides, sigmas)]


def _blur(images: torch.Tensor, kernels: list[Any]) -> torch.Tensor:
    """Convolve each image with its own symmetric kernel, the border reflected."""
    device, sides = images.device, images.shape[2:]
    most = max(len(kernel) // 2 for kernel in kernels)
    taps = np.zeros((len(kernels), most + 2))
    for row, kernel in zip(taps, kernels):
        half = kernel[len(kernel) // 2 :, 0]
        row[: len(half)] = half
    weights = send(taps, device)
    rows, columns = (
        torch.stack([weights[:, one] for one in _distances(side, most, device)]).sum(0)
        for side in sides
    )
    return _resample(images, rows, columns)


def _distances(side: int, most: int, device: torch.device) -> list[torch.Tensor]:
    """Return distances of target pixels to source pixels and reflections; `most + 1`: too far."""
    source = torch.arange(side, device=device)
    target, last = source[:, None], 2 * (side - 1) - source
    below = torch.where(source > 0, target + source, most + 1)
    above = torch.where(source < side - 1, last - target, most + 1)
    return [one.clamp(max=most + 1) for one in ((target - source).abs(), below, above)]
