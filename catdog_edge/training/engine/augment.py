"""Augmentation of batches of uint8 images.

All randomness comes from the generator that is passed in, with a fixed number of draws per batch,
so that seed, epoch and step decide a batch wherever it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np

from catdog_edge.training.array_types import Float64, Pixels
from catdog_edge.training.config.recipes import Policy

LUMA = np.array([0.114, 0.587, 0.299])
"""Weights of blue, green and red in a grey value (ITU-R BT.601, as in OpenCV)."""


@dataclass(frozen=True)
class Share:
    """A process's part of a batch: the number of images in all of it, and which rows."""

    batch: int
    rows: slice


def augment(
    pictures: Pixels, policy: str, generator: np.random.Generator, share: Share | None = None
) -> Pixels:
    """Augment each image of a batch differently.

    Args:
        pictures: `uint8 [N,H,W,3]`, BGR; not modified.
        policy: `default`, `camera` or `classic`, see `augment_...`; `none`: the same array.
        generator: Source of all randomness.
        share: Which images of a larger batch these are, without effect on any; `None`: all.

    Returns:
        `uint8 [N,H,W,3]`, BGR.

    Raises:
        ValueError: There is no such policy, or the images are not `uint8 [N,H,W,3]`.

    Examples:
        >>> images = augment(images, "camera", np.random.default_rng([seed, epoch, step]))
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(
            f"wanted pictures uint8 [N,H,W,3], got {pictures.dtype} {list(pictures.shape)}"
        )
    if policy == "none":
        return pictures
    policies = {"default": augment_default, "camera": augment_camera, "classic": augment_classic}
    if policy not in policies:
        raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, got {policy!r}")
    return policies[policy](pictures, generator, share or Share(len(pictures), slice(None)))


def augment_classic(pictures: Pixels, generator: np.random.Generator, share: Share) -> Pixels:
    """Augment as the known system does.

    Rotation about the centre by up to 45 degrees either way, uncovered corners black; mirrored
    left to right with probability 0.3, upside down with 0.05; grey with 0.1.
    """
    count, rows = share.batch, share.rows
    angle = np.deg2rad(generator.uniform(-45, 45, count))
    flips = generator.random((count, 2)) < (0.3, 0.05)
    grey = (generator.random(count) < 0.1)[rows]
    maps = _affine(angle, np.where(flips, -1.0, 1.0), np.zeros((count, 2)), pictures.shape)[rows]
    changed = np.empty(pictures.shape, np.uint8)
    for index in range(len(pictures)):
        _warp(pictures[index], maps[index], cv2.BORDER_CONSTANT, changed[index])
        if grey[index]:
            grey_image = cv2.cvtColor(changed[index], cv2.COLOR_BGR2GRAY)
            cv2.cvtColor(grey_image, cv2.COLOR_GRAY2BGR, dst=changed[index])
    return changed


def augment_default(pictures: Pixels, generator: np.random.Generator, share: Share) -> Pixels:
    """Change framing and light, and add small defects.

    One affine warp: a crop of 40 to 110 % of the area and of aspect 3:4 to 4:3, placed anywhere,
    rotated by up to 12 degrees, mirrored left to right with probability 0.5, the border
    reflected. One colour matrix: brightness and contrast 0.7 to 1.3, saturation 0.6 to 1.4 (grey
    for 7 images in 100), a gain of 0.92 to 1.08 per channel. Then one image in ten each is
    blurred, gets noise, or loses a rectangle of 20 to 50 % of the sides to grey.
    """
    count, rows = share.batch, share.rows
    area = generator.uniform(0.4, 1.1, count)
    aspect = np.exp(generator.uniform(-1, 1, count) * np.log(4 / 3))
    scale = np.sqrt(np.stack([area * aspect, area / aspect], axis=1))
    shift = generator.uniform(-0.5, 0.5, (count, 2)) * np.maximum(0.0, 1.0 - scale)
    scale[:, 0] *= np.where(generator.random(count) < 0.5, -1.0, 1.0)
    angle = np.deg2rad(generator.uniform(-12, 12, count))
    maps = _affine(angle, scale, shift, pictures.shape)[rows]
    colours = _colour_matrices(generator, count)[rows]
    fault = generator.random(count)[rows]
    seeds = generator.integers(0, 2**31, count)[rows]
    amounts = generator.random((count, 4))[rows]
    changed = np.empty(pictures.shape, np.uint8)
    for index in range(len(pictures)):
        picture = changed[index]
        _warp(pictures[index], maps[index], cv2.BORDER_REFLECT_101, picture)
        cv2.transform(picture, colours[index], dst=picture)
        if fault[index] < 0.1:
            side = 3 if amounts[index, 0] < 0.5 else 5
            cv2.GaussianBlur(picture, (side, side), 0, dst=picture)
        elif fault[index] < 0.2:
            _add_noise(picture, 4 + 16 * amounts[index, 0], int(seeds[index]))
        elif fault[index] < 0.3:
            _erase(picture, amounts[index])
    return changed


def augment_camera(pictures: Pixels, generator: np.random.Generator, share: Share) -> Pixels:
    """Add what a fixed camera does to `augment_default`.

    First, one image in eight is far away: 25 to 75 % of its sides, placed anywhere, on its own
    blurred colours or its reflection. Last, one in ten has a seventh to a half of the light with
    the noise that goes with it, and one in ten is out of focus (Gaussian, sigma 0.5 to 2.5 % of
    the shorter side).
    """
    count, rows = share.batch, share.rows
    far = (generator.random(count) < 0.125)[rows]
    places = generator.random((count, 5))[rows]
    faults = generator.random((count, 3))[rows]
    seeds = generator.integers(0, 2**31, count)[rows]
    placed = pictures.copy()
    for number in np.flatnonzero(far):
        placed[number] = _far_away(pictures[number], places[number])
    changed = augment_default(placed, generator, share)
    for index, (dark, blurred, strength) in enumerate(faults):
        picture = changed[index]
        if blurred < 0.1:
            sigma = (0.005 + 0.02 * strength) * min(picture.shape[:2])
            cv2.GaussianBlur(picture, (0, 0), sigma, dst=picture)
        if dark < 0.1:
            cv2.convertScaleAbs(picture, dst=picture, alpha=0.15 + 0.4 * strength)
            _add_noise(picture, 2 + 4 * strength, int(seeds[index]))
    return changed


def _far_away(picture: Pixels, place: Float64) -> Pixels:
    """Place the image, made smaller, into a frame of its own size."""
    height, width = picture.shape[:2]
    part = 0.25 + 0.5 * place[0]
    tall, wide = max(1, round(part * height)), max(1, round(part * width))
    small = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)
    top, left = int((height - tall + 1) * place[1]), int((width - wide + 1) * place[2])
    below, right = height - tall - top, width - wide - left
    frame = cv2.copyMakeBorder(small, top, below, left, right, cv2.BORDER_REFLECT)
    if place[3] < 0.5:
        few = cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA)
        if place[4] < 0.5:
            few = few[::-1, ::-1]
        frame = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
        frame[top : top + tall, left : left + wide] = small
    return np.asarray(frame, dtype=np.uint8)


def _affine(angle: Float64, scale: Float64, shift: Float64, shape: tuple[int, ...]) -> Float64:
    """Return maps from target to source pixels, `[N,2,3]`, for images of a shape `[N,H,W,3]`.

    Angles `[N]` are in radians; scales `[N,2]` (width, height; negative mirrors) and shifts of the
    crop's centre `[N,2]` are in shares of the image.
    """
    size = np.array([shape[2], shape[1]], dtype=np.float64)
    cosine, sine = np.cos(angle), np.sin(angle)
    maps = np.empty((len(angle), 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = cosine * scale[:, 0], -sine * scale[:, 1]
    maps[:, 1, 0], maps[:, 1, 1] = sine * scale[:, 0], cosine * scale[:, 1]
    middle = (size - 1) / 2
    maps[:, :, 2] = middle + shift * size - maps[:, :, :2] @ middle
    return maps


def _warp(picture: Pixels, matrix: Float64, border: int, out: Pixels) -> None:
    size, how = out.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(picture, matrix, size, dst=out, flags=how, borderMode=border)


def _colour_matrices(generator: np.random.Generator, count: int) -> Float64:
    """Return matrices for `cv2.transform`, `[N,3,4]`."""
    brightness, contrast = generator.uniform(0.7, 1.3, (2, count))
    saturation = generator.uniform(0.6, 1.4, count)
    saturation[generator.random(count) < 0.07] = 0.0
    gains = generator.uniform(0.92, 1.08, (count, 3))
    towards_grey = np.broadcast_to(LUMA, (3, 3))
    colours = np.empty((count, 3, 4))
    mix = saturation[:, None, None]
    colours[:, :, :3] = mix * np.eye(3) + (1 - mix) * towards_grey
    colours[:, :, :3] *= (contrast * brightness)[:, None, None] * gains[:, :, None]
    colours[:, :, 3] = (127.5 * (1 - contrast) * brightness)[:, None]
    return colours


def _add_noise(picture: Pixels, deviation: float, seed: int) -> None:
    # Uniform over 256 levels, of deviation 73.9 before it is scaled: a quarter of the time
    # of normal noise, and as hard to see through.
    noise = np.random.default_rng(seed).integers(0, 256, picture.shape, dtype=np.uint8)
    gain = deviation / 73.9
    cv2.addWeighted(picture, 1.0, noise, gain, -127.5 * gain, dst=picture)


def _erase(picture: Pixels, amounts: Float64) -> None:
    height, width = picture.shape[:2]
    tall, wide = int(height * (0.2 + 0.3 * amounts[0])), int(width * (0.2 + 0.3 * amounts[1]))
    top, left = int((height - tall) * amounts[2]), int((width - wide) * amounts[3])
    picture[top : top + tall, left : left + wide] = 127
