"""Augmentation of batches of uint8 images.

All randomness comes from the generator that is passed in, with a fixed number of draws per batch,
so that seed, epoch and step decide a batch wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

import cv2
import numpy as np

from catdog_edge.training.array_types import Flags, Float64, Labels, Pixels
from catdog_edge.training.config.recipes import Policy

LUMA = np.array([0.114, 0.587, 0.299])  # of blue, green and red in grey (ITU-R BT.601, OpenCV)
# Of noise that is uniform over 256 levels: a quarter of the time of normal noise, as hard to see
# through.
NOISE_DEVIATION = 73.9
ERASED = 127  # the level of what is erased


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
        policy: `default`, `camera` or `classic`, see `draw_...`; `none`: the same array.
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
            f"expected images uint8 [N,H,W,3], got {pictures.dtype} {list(pictures.shape)}"
        )
    draws = draw_changes(
        policy, generator, pictures.shape, share or Share(len(pictures), slice(None))
    )
    if draws is None:
        return pictures
    changed = np.empty(pictures.shape, np.uint8)
    for index, picture in enumerate(pictures):
        _change(picture, draws, index, changed[index])
    return changed


def _none() -> Any:
    return np.zeros(0)


@dataclass(frozen=True)
class Draws:
    """The augmentations of N images, in order of application.

    A value of 0 or `False` leaves its image as it is, an empty array all images.
    """

    maps: Float64  # `[N,2,3]`, from target to source pixels
    reflected: bool = False  # what the maps do not cover: the border reflected, or black
    grey: Flags = field(default_factory=_none)  # `[N]`
    colours: Float64 = field(default_factory=_none)  # `[N,3,4]`, for `cv2.transform`
    blur: Labels = field(default_factory=_none)  # `[N]`: side of a small Gaussian, 3 or 5
    noise: Float64 = field(default_factory=_none)  # `[N]`: standard deviation
    erased: Flags = field(default_factory=_none)  # `[N]`
    amounts: Float64 = field(default_factory=_none)  # `[N,4]`: place and size of what is erased
    seeds: Labels = field(default_factory=_none)  # `[N]`: of the noise
    far: Flags = field(default_factory=_none)  # `[N]`; before the maps
    places: Float64 = field(default_factory=_none)  # `[N,5]`: place and size of what is far away
    defocus: Float64 = field(default_factory=_none)  # `[N]`: sigma, relative to the shorter side
    light: Float64 = field(default_factory=_none)  # `[N]`: the share of it that is left
    dark_noise: Float64 = field(default_factory=_none)  # `[N]`: standard deviation
    dark_seeds: Labels = field(default_factory=_none)  # `[N]`

    def of(self, rows: slice) -> Draws:
        """Return the augmentations of some of the images."""
        return self._changed(lambda _, one: one[rows])

    def joined(self, more: Draws) -> Draws:
        """Return these and those of the same policy for more images."""
        return self._changed(lambda name, one: np.concatenate([one, getattr(more, name)]))

    def _changed(self, change: Callable[[str, Any], Any]) -> Draws:
        arrays = {one.name: getattr(self, one.name) for one in fields(self)}
        del arrays["reflected"]
        return replace(self, **{name: change(name, one) for name, one in arrays.items()})


def draw_changes(
    policy: str, generator: np.random.Generator, shape: Sequence[int], share: Share
) -> Draws | None:
    """Draw the augmentations of images of a shape `[N,H,W,3]`; `None` without any."""
    if policy == "none":
        return None
    policies = {"default": draw_default, "camera": draw_camera, "classic": draw_classic}
    if policy not in policies:
        raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, got {policy!r}")
    return policies[policy](generator, share.batch, shape).of(share.rows)


def draw_classic(generator: np.random.Generator, count: int, shape: Sequence[int]) -> Draws:
    """Draw the augmentations of the policy `classic`.

    Rotation about the centre by up to 45 degrees either way, uncovered corners black; mirrored
    left to right with probability 0.3, upside down with 0.05; grey with 0.1.
    """
    angle = np.deg2rad(generator.uniform(-45, 45, count))
    flips = generator.random((count, 2)) < (0.3, 0.05)
    grey = generator.random(count) < 0.1
    return Draws(_affine(angle, np.where(flips, -1.0, 1.0), np.zeros((count, 2)), shape), grey=grey)


def draw_default(generator: np.random.Generator, count: int, shape: Sequence[int]) -> Draws:
    """Draw changes of framing and light, and small defects.

    One affine warp: a crop of 40 to 110 % of the area and of aspect 3:4 to 4:3, placed anywhere,
    rotated by up to 12 degrees, mirrored left to right with probability 0.5, the border
    reflected. One colour matrix: brightness and contrast 0.7 to 1.3, saturation 0.6 to 1.4 (grey
    for 7 images in 100), a gain of 0.92 to 1.08 per channel. Then one image in ten each is
    blurred, gets noise, or loses a rectangle of 20 to 50 % of the sides to grey.
    """
    area = generator.uniform(0.4, 1.1, count)
    aspect = np.exp(generator.uniform(-1, 1, count) * np.log(4 / 3))
    scale = np.sqrt(np.stack([area * aspect, area / aspect], axis=1))
    shift = generator.uniform(-0.5, 0.5, (count, 2)) * np.maximum(0.0, 1.0 - scale)
    scale[:, 0] *= np.where(generator.random(count) < 0.5, -1.0, 1.0)
    maps = _affine(np.deg2rad(generator.uniform(-12, 12, count)), scale, shift, shape)
    colours = _colour_matrices(generator, count)
    fault = generator.random(count)
    seeds = generator.integers(0, 2**31, count)
    amounts = generator.random((count, 4))
    return Draws(
        maps,
        reflected=True,
        colours=colours,
        blur=np.where(fault < 0.1, np.where(amounts[:, 0] < 0.5, 3, 5), 0),
        noise=np.where((fault >= 0.1) & (fault < 0.2), 4 + 16 * amounts[:, 0], 0),
        erased=(fault >= 0.2) & (fault < 0.3),
        amounts=amounts,
        seeds=seeds,
    )


def draw_camera(generator: np.random.Generator, count: int, shape: Sequence[int]) -> Draws:
    """Draw the effects of a fixed camera, in addition to `draw_default`.

    First, one image in eight is far away: 25 to 75 % of its sides, placed anywhere, on its own
    blurred colours or its reflection. Last, one in ten has a seventh to a half of the light with
    the noise that goes with it, and one in ten is out of focus (Gaussian, sigma 0.5 to 2.5 % of
    the shorter side).
    """
    far = generator.random(count) < 0.125
    places = generator.random((count, 5))
    dark, blurred, strength = generator.random((count, 3)).T
    seeds = generator.integers(0, 2**31, count)
    return replace(
        draw_default(generator, count, shape),
        far=far,
        places=places,
        defocus=np.where(blurred < 0.1, 0.005 + 0.02 * strength, 0),
        light=np.where(dark < 0.1, 0.15 + 0.4 * strength, 0),
        dark_noise=np.where(dark < 0.1, 2 + 4 * strength, 0),
        dark_seeds=seeds,
    )


def _change(picture: Pixels, draws: Draws, index: int, out: Pixels) -> None:
    """Apply the drawn augmentations to an image."""

    def drawn(values: Any) -> bool:
        return len(values) > 0 and bool(values[index])

    if drawn(draws.far):
        picture = _far_away(picture, draws.places[index])
    border = cv2.BORDER_REFLECT_101 if draws.reflected else cv2.BORDER_CONSTANT
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = out.shape[1::-1]
    cv2.warpAffine(picture, draws.maps[index], size, dst=out, flags=how, borderMode=border)
    if drawn(draws.grey):
        cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR, dst=out)
    if len(draws.colours):
        cv2.transform(out, draws.colours[index], dst=out)
    if drawn(draws.blur):
        cv2.GaussianBlur(out, (int(draws.blur[index]),) * 2, 0, dst=out)
    if drawn(draws.noise):
        _add_noise(out, draws.noise[index], int(draws.seeds[index]))
    if drawn(draws.erased):
        top, left, below, right = erased_boxes(draws.amounts[index], *out.shape[:2])
        out[top:below, left:right] = ERASED
    if drawn(draws.defocus):
        cv2.GaussianBlur(out, (0, 0), draws.defocus[index] * min(out.shape[:2]), dst=out)
    if drawn(draws.light):
        cv2.convertScaleAbs(out, dst=out, alpha=draws.light[index])
        _add_noise(out, draws.dark_noise[index], int(draws.dark_seeds[index]))


def far_boxes(places: Float64, height: int, width: int) -> tuple[Labels, ...]:
    """Return top, left, height and width of images that are far away, each `[N]` for `[N,5]`."""
    part = 0.25 + 0.5 * places[..., 0]
    tall = np.maximum(1, np.round(part * height)).astype(int)
    wide = np.maximum(1, np.round(part * width)).astype(int)
    top = ((height - tall + 1) * places[..., 1]).astype(int)
    return top, ((width - wide + 1) * places[..., 2]).astype(int), tall, wide


def _far_away(picture: Pixels, place: Float64) -> Pixels:
    """Paste the downscaled image into a frame of its own size."""
    height, width = picture.shape[:2]
    top, left, tall, wide = (int(one) for one in far_boxes(place, height, width))
    small = cv2.resize(picture, (wide, tall), interpolation=cv2.INTER_AREA)
    below, right = height - tall - top, width - wide - left
    frame = cv2.copyMakeBorder(small, top, below, left, right, cv2.BORDER_REFLECT)
    if place[3] < 0.5:
        few = cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA)
        if place[4] < 0.5:
            few = few[::-1, ::-1]
        frame = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
        frame[top : top + tall, left : left + wide] = small
    return np.asarray(frame, dtype=np.uint8)


def _affine(angle: Float64, scale: Float64, shift: Float64, shape: Sequence[int]) -> Float64:
    """Return maps `[N,2,3]` from target to source pixels, for images of a shape `[N,H,W,3]`.

    Angles are in radians; scales (negative: mirrored) and shifts are relative to width and height.
    """
    size = np.array([shape[2], shape[1]], dtype=np.float64)
    cosine, sine = np.cos(angle), np.sin(angle)
    maps = np.empty((len(angle), 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = cosine * scale[:, 0], -sine * scale[:, 1]
    maps[:, 1, 0], maps[:, 1, 1] = sine * scale[:, 0], cosine * scale[:, 1]
    middle = (size - 1) / 2
    maps[:, :, 2] = middle + shift * size - maps[:, :, :2] @ middle
    return maps


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
    noise = np.random.default_rng(seed).integers(0, 256, picture.shape, dtype=np.uint8)
    gain = deviation / NOISE_DEVIATION
    cv2.addWeighted(picture, 1.0, noise, gain, -127.5 * gain, dst=picture)


def erased_boxes(amounts: Float64, height: int, width: int) -> tuple[Labels, ...]:
    """Return top, left, below and right of rectangles, each `[N]` for amounts `[N,4]`."""
    tall, wide = (
        (side * (0.2 + 0.3 * amounts[..., axis])).astype(int)
        for axis, side in enumerate((height, width))
    )
    top = ((height - tall) * amounts[..., 2]).astype(int)
    left = ((width - wide) * amounts[..., 3]).astype(int)
    return top, left, top + tall, left + wide
