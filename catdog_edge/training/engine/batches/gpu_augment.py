"""Augmentation of batches of images on a device: what `augment` does, drawn by the same code.

The host turns what is drawn into small arrays, which are uploaded at once; few operations on the
device then change all images of a batch, since each costs the host microseconds to start. Resizes
and blurs are products of an image with a matrix for its rows and one for its columns. Values agree
with OpenCV's up to its rounding; noise is a part, drawn by the seed, of one array of noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from catdog_edge.training.array_types import Flags, Float64, Labels
from catdog_edge.training.data.negatives import Choice
from catdog_edge.training.engine.batches import augment

CUBIC = -0.75  # OpenCV's and PyTorch's parameter of cubic interpolation
CLEAR = 4  # images that are far away stand before their 4x4 pixels, enlarged
SMALL = {3: np.array([1, 2, 1]) / 4, 5: np.array([1, 4, 6, 4, 1]) / 16}  # OpenCV's small Gaussians
NOISES = 2**22  # places in the array of noise where an image's may begin
Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def changes(draws: augment.Draws, height: int, width: int) -> Arrays:
    """Turn the augmentations of N images of this size into what `change` needs."""
    arrays = _far_away(draws, height, width) if np.any(draws.far) else {}
    arrays["reflection" if draws.reflected else "zeros"] = _relative(draws.maps, height, width)
    if np.any(draws.grey):
        grey = np.c_[np.broadcast_to(augment.LUMA, (3, 3)), np.zeros(3)]
        arrays["colours"] = np.where(draws.grey[:, None, None], grey, np.eye(3, 4))
    if len(draws.colours):
        arrays["colours"] = draws.colours
    if np.any(draws.noise):
        arrays |= {"noise": draws.noise / augment.NOISE_DEVIATION, "seeds": draws.seeds % NOISES}
    if np.any(draws.erased):
        top, left, below, right = augment.erased_boxes(draws.amounts, height, width)
        arrays["erased_rows"] = _between(top, below, height) & draws.erased[:, None]
        arrays["erased_columns"] = _between(left, right, width)
    if np.any(draws.blur) or np.any(draws.defocus) or np.any(draws.light):
        arrays["blur"] = _blurs(draws, min(height, width))
    if np.any(draws.dark_noise):
        arrays["dark_noise"] = draws.dark_noise / augment.NOISE_DEVIATION
        arrays["dark_seeds"] = draws.dark_seeds % NOISES
    return arrays


def growth(chosen: Sequence[Choice], height: int, width: int) -> Arrays:
    """Turn the choices of images of this size, the last of a batch, into what `change` needs."""
    boxes = np.array([one[2:] if one.height else (0, 0, height, width, 1) for one in chosen])
    if not any(one.height for one in chosen):
        return {}
    top, left, tall, wide, times = boxes.T
    return _growing(_axes(top, left), _axes(tall, wide), _axes(height, width), _axes(times, times))


@torch.no_grad()
def change(pixels: torch.Tensor, sent: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Apply the changes of `changes` and `growth` to images.

    Args:
        pixels: `uint8 [N,H,W,3]`, BGR; not modified.
        sent: The arrays, on the same device; those that are missing change nothing.

    Returns:
        `uint8 [N,H,W,3]`, BGR.
    """
    borders = [one for one in ("reflection", "zeros") if one in sent]
    if not borders and "grown" not in sent:
        return pixels
    images = _planes(pixels)
    if "grown" in sent:
        grown = images[-sent["grown"].shape[2] :]
        grown.copy_(_resample(grown, *_matrices(sent, "grown", grown)).round_().clamp_(0, 255))
    if "far" in sent:
        images.index_copy_(0, sent["far"], _move_away(images[sent["far"]], sent))
    for border in borders:
        images = _warp(images, sent[border], border)
    if "colours" in sent:
        images = _recolour(images, sent["colours"])
    if "noise" in sent:
        _add_noise(images, sent["noise"], sent["seeds"]).clamp_(0, 255)
    if "erased_rows" in sent:
        erased = _inside(sent["erased_rows"], sent["erased_columns"])
        images.masked_fill_(erased, augment.ERASED)
    if "blur" in sent:
        images = _blur(images, *sent["blur"])
    if "dark_noise" in sent:
        _add_noise(images, sent["dark_noise"], sent["dark_seeds"])
    return _pixels(images.round_().clamp_(0, 255))


@torch.no_grad()
def resize_tensor(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize `uint8 [N,H,W,3]`, by areas where they become smaller, else linearly."""
    kind = "area" if height < pixels.shape[1] else "linear"
    rows, columns = (
        _resizing(kind, old, new, pixels.device)
        for old, new in zip(pixels.shape[1:3], (height, width))
    )
    return _pixels(_resample(_planes(pixels), rows, columns).round_())


# Images on the device are `float32 [N,H,3,W]`: both products of a resize take them as they are.
def _planes(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.transpose(2, 3).to(torch.float32, memory_format=torch.contiguous_format)


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.transpose(2, 3).to(torch.uint8, memory_format=torch.contiguous_format)


def _resample(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Multiply `[N,H,3,W]` by `[N,h,H]` or `[h,H]`, and by `[N,w,W]` or `[w,W]`: `[N,h,3,w]`."""
    rows, columns = (one.expand(len(images), *one.shape[-2:]) for one in (rows, columns))
    tall = torch.bmm(rows, images.flatten(2)).view(len(images), -1, images.shape[3])
    return torch.bmm(tall, columns.transpose(1, 2)).view(len(images), rows.shape[1], 3, -1)


def _between(low: Labels, high: Labels, side: int) -> Array:
    places = np.arange(side)
    return np.asarray((places >= low[:, None]) & (places < high[:, None]))


def _inside(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Combine `bool [N,H]` and `bool [N,W]` into `bool [N,H,1,W]`."""
    return rows[:, :, None, None] & columns[:, None, None]


def _relative(maps: Float64, height: int, width: int) -> Float64:
    """Turn maps of pixels into maps of -1..1, from the first pixel's centre to the last's."""
    middle = (np.array([width, height]) - 1) / 2
    half = np.maximum(middle, 0.5)
    relative = maps / half[None, :, None]
    relative[:, :, 2] += (maps[:, :, :2] @ middle - middle) / half
    relative[:, :, :2] *= half
    return np.asarray(relative)


@lru_cache(maxsize=64)
def _line(side: int, device: torch.device) -> torch.Tensor:
    return torch.linspace(-1, 1, side, device=device)


def _warp(images: torch.Tensor, maps: torch.Tensor, border: str) -> torch.Tensor:
    """Warp images by relative maps `[N,2,3]` from target to source."""
    y, x = (_line(images.shape[axis], images.device) for axis in (1, 3))
    maps = maps[:, None, None]
    grid = torch.addcmul(
        torch.addcmul(maps[..., 2], maps[..., 1], y[:, None, None]), maps[..., 0], x[:, None]
    )
    planes = images.transpose(1, 2)
    if border == "zeros":  # PyTorch leaves it to cuDNN, which is not known to take other strides
        planes = planes.contiguous()
    warped = functional.grid_sample(planes, grid, padding_mode=border, align_corners=True)
    return warped.round_().transpose(1, 2)


def _recolour(images: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Multiply the channels by matrices `[N,3,4]`."""
    planes = images.transpose(1, 2)
    changed = torch.baddbmm(colours[:, :, 3:], colours[:, :, :3], planes.flatten(2))
    out = torch.empty(images.shape, device=images.device)
    torch.clamp(changed.round_().view(planes.shape), 0, 255, out=out.transpose(1, 2))
    return out


@lru_cache(maxsize=8)
def _noise(length: int, device: torch.device) -> torch.Tensor:
    """Return noise from each place of an array on, a view `float32 [NOISES,length]`."""
    drawn = np.random.default_rng(0).integers(0, 256, NOISES + length, np.uint8)
    noise = torch.from_numpy(drawn).to(device).float().sub_(127.5)
    return noise.as_strided((NOISES, length), (1, 1))


def _add_noise(images: torch.Tensor, gains: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    noise = _noise(images[0].numel(), images.device)[seeds].view(images.shape)
    return images.addcmul_(noise, gains[:, None, None, None])


def _far_away(draws: augment.Draws, height: int, width: int) -> Arrays:
    rows = np.flatnonzero(draws.far)
    places = draws.places[rows]
    top, left, tall, wide = augment.far_boxes(places, height, width)
    coloured, turned = places[:, 3] < 0.5, places[:, 4] < 0.5
    behind = (_weights("linear", CLEAR, side) for side in (height, width))
    behind_rows, behind_columns = (
        np.where(turned[:, None, None], one[:, ::-1], one) for one in behind
    )
    return {
        "far": rows,
        "behind_rows": behind_rows,
        "behind_columns": behind_columns,
        "near_rows": _between(top, top + tall, height) | ~coloured[:, None],
        "near_columns": _between(left, left + wide, width) | ~coloured[:, None],
        **_shrinking(_axes(top, left), _axes(tall, wide), _axes(height, width)),
    }


def _move_away(images: torch.Tensor, sent: Mapping[str, torch.Tensor]) -> torch.Tensor:
    small = _resample(images, *_matrices(sent, "small", images))
    few = _resample(
        images, *(_resizing("area", images.shape[axis], CLEAR, images.device) for axis in (1, 3))
    )
    behind = _resample(few.round_(), sent["behind_rows"], sent["behind_columns"])
    near = _inside(sent["near_rows"], sent["near_columns"])
    return torch.where(near, small, behind).round_()


@lru_cache(maxsize=64)
def _weights(kind: str, old: int, new: int) -> Float64:
    """Return the matrix `[new,old]` that resizes by areas or linearly."""
    scale = old / new
    source, target = np.arange(old), np.arange(new)[:, None]
    if kind == "area":
        low, high = target * scale, (target + 1) * scale
        covered = np.minimum(high, source + 1) - np.maximum(low, source)
        return np.asarray(np.clip(covered, 0, None) / scale)
    middle = np.clip((target + 0.5) * scale - 0.5, 0, old - 1)
    return np.asarray(np.clip(1 - np.abs(middle - source), 0, None))


@lru_cache(maxsize=64)
def _resizing(kind: str, old: int, new: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(_weights(kind, old, new).astype(np.float32)).to(device)


def _shrinking(start: Labels, length: Labels, side: Labels) -> Arrays:
    """Resize by areas to a length from a start on, reflected beyond it; see `_taps`."""
    place = (np.arange(side.max()) - start) % (2 * length)
    place = np.where(place < length, place, 2 * length - 1 - place)
    scale = (side / length).astype(np.float32)
    low = place.astype(np.float32) * scale
    source = np.floor(low) + _numbers(int(np.ceil(scale.max())) + 1).astype(np.float32)
    covered = np.minimum(low + scale - source, 1) - np.maximum(low - source, 0)
    return _taps("small", source, source < side, np.maximum(covered, 0) / scale)


def _growing(start: Labels, length: Labels, side: Labels, times: Labels) -> Arrays:
    """Resize cubically from a part, mirrored `times` times, to all; see `_taps`."""
    place = (np.arange(side.max()) + 0.5) * (times * length / side) % (2 * length)
    place = np.minimum(place, 2 * length - place) - 0.5
    first = np.floor(place)
    after = place - first
    beyond = [CUBIC * (((one - 5) * one + 8) * one - 4) for one in (after + 1, 2 - after)]
    near = [((CUBIC + 2) * one - (CUBIC + 3)) * one**2 + 1 for one in (after, 1 - after)]
    source = first.astype(int) + _numbers(4) - 1
    inside = (source >= 0) & (source < length)
    weights = np.stack([beyond[0], *near, beyond[1]]) * inside
    return _taps("grown", source + start, inside, weights / weights.sum(0))


def _numbers(taps: int) -> Labels:
    """Return 0, 1, ... of K taps, `[K,1,1,1]`: NumPy is slow where the last axis is short."""
    return np.arange(taps)[:, None, None, None]


def _taps(name: str, source: Labels, inside: Flags, weights: Float64) -> Arrays:
    """Return the source pixels of the rows and columns of images, and their weights.

    Both are `[K,2,N,S]`: of S target pixels (those of the longer side) K taps each. A tap that is
    not inside the image gets a column of its own, beyond those of the matrix.
    """
    beyond = source.shape[3] + _numbers(len(source))
    return {name: weights, f"{name}_source": np.where(inside, source, beyond).astype(int)}


def _axes(rows: Any, columns: Any) -> Labels:
    """Stack values of the rows and of the columns to `[2,N,1]`."""
    return np.stack([np.atleast_1d(rows), np.atleast_1d(columns)])[:, :, None]


def _matrices(
    sent: Mapping[str, torch.Tensor], name: str, images: torch.Tensor
) -> list[torch.Tensor]:
    """Return the matrices of the rows and columns of images, `[N,H,H]` and `[N,W,W]`."""
    source, weights = (sent[one].permute(1, 2, 3, 0) for one in (f"{name}_source", name))
    _, count, side, taps = weights.shape
    matrices = weights.new_zeros(2, count, side, side + taps)
    matrices.scatter_(3, source, weights)
    sides = images.shape[1], images.shape[3]
    return [one[:, :side, :side] for one, side in zip(matrices, sides)]


def _blurs(draws: augment.Draws, side: int) -> Float64:
    """Return the symmetric kernels of rows and columns, `[2,N,taps]` from the middle on.

    Those of the rows have the light, too. The kernels are those that OpenCV uses for uint8.
    """
    sigmas = draws.defocus * side if len(draws.defocus) else np.zeros(len(draws.blur))
    halves = np.where(sigmas, np.round(sigmas * 6 + 1).astype(int) // 2, 0)
    longest = 8 + 8 * (int(halves.max() + SMALL[5].size) // 8)  # few lengths: `_spread` is kept
    away = np.arange(longest)
    taps = np.exp(-0.5 * (away / np.where(sigmas, sigmas, 1)[:, None]) ** 2)
    taps *= away <= halves[:, None]
    taps /= 2 * taps.sum(1, keepdims=True) - taps[:, :1]
    for number in np.flatnonzero(draws.blur):
        whole = np.r_[taps[number, :0:-1], taps[number]]
        taps[number] = np.convolve(whole, SMALL[int(draws.blur[number])], "same")[longest - 1 :]
    light = np.where(draws.light, draws.light, 1)[:, None] if len(draws.light) else 1.0
    return np.stack([taps * light, taps])


def _blur(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Convolve each image with its own symmetric kernels `[N,taps]`, the border reflected."""
    matrices = (
        (taps @ _spread(images.shape[axis], taps.shape[1], images.device)).view(
            len(images), images.shape[axis], -1
        )
        for taps, axis in ((rows, 1), (columns, 3))
    )
    return _resample(images, *matrices)


@lru_cache(maxsize=32)
def _spread(side: int, taps: int, device: torch.device) -> torch.Tensor:
    """Return how often each target pixel takes each source pixel with a tap, `[taps,side*side]`.

    A source pixel is taken at its place and at its two reflections.
    """
    source, target = np.arange(side), np.arange(side)[:, None]
    below = np.where(source > 0, target + source, taps)
    above = np.where(source < side - 1, 2 * (side - 1) - source - target, taps)
    found = np.zeros((taps, side, side), np.float32)
    for distance in (np.abs(target - source), below, above):
        found += distance == np.arange(taps)[:, None, None]
    return torch.from_numpy(found).flatten(1).to(device)
