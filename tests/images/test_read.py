"""Odd and broken pictures: read as a person would see them, or refused with a reason.

What a person would see is taken from Pillow, an independent decoder.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images.encoded import (
    Image,
    assert_seen,
    avif,
    encode,
    gif,
    photo,
    png,
    reason,
    scene,
    see_through,
    seen,
    tiff,
)

from catdog_edge.images.read import decode_picture, is_picture, read_picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_ordinary(kind: str) -> None:
    assert_seen(encode(scene(), kind))


@gif
def test_gif() -> None:
    assert_seen(encode(scene(), "GIF"))
    assert_seen(encode(see_through(), "GIF"))


@avif
def test_avif() -> None:
    assert_seen(encode(scene(), "AVIF"))
    assert_seen(encode(see_through(), "AVIF"))


def test_progressive_and_grey_and_palette_and_bits() -> None:
    assert_seen(encode(photo(), "JPEG", progressive=True))
    assert_seen(encode(photo().convert("L"), "JPEG"))
    assert_seen(encode(photo().convert("L"), "PNG"))
    assert_seen(encode(photo().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"))
    assert_seen(encode(photo().convert("1"), "PNG"))


def test_cmyk() -> None:
    assert_seen(encode(photo().convert("CMYK"), "JPEG", quality=95))
    assert_seen(encode(photo().convert("CMYK"), "TIFF"))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_the_same_picture(suffix: str) -> None:
    eight = np.array(photo())[..., ::-1]
    done, data = cv2.imencode(suffix, eight.astype(np.uint16) * 257)
    assert done
    assert np.array_equal(decode_picture(data.tobytes()), eight)
    done, data = cv2.imencode(suffix, eight[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(decode_picture(data.tobytes()), np.repeat(eight[..., :1], 3, axis=2))


def test_sixteen_bits_with_alpha() -> None:
    four = np.array(see_through())[..., [2, 1, 0, 3]]
    done, data = cv2.imencode(".png", four.astype(np.uint16) * 257)
    assert done
    assert np.array_equal(decode_picture(data.tobytes()), seen(encode(see_through(), "PNG")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_lies_on_white(kind: str) -> None:
    data = encode(see_through(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert_seen(data, tolerance=1)
    assert (decode_picture(data)[:20, :30] == 255).all()


@avif
@pytest.mark.parametrize("depth", [8, 10, 12])
def test_avif_of_more_bits_with_alpha(depth: int) -> None:
    four = np.array(see_through())[..., [2, 1, 0, 3]].astype(np.uint16) << (depth - 8)
    four[..., 3] |= 2 ** (depth - 8) - 1  # 255 of 255 is all bits
    stored = four.astype(np.uint8 if depth == 8 else np.uint16)
    done, data = cv2.imencode(".avif", stored, [cv2.IMWRITE_AVIF_DEPTH, depth])
    assert done
    off = np.abs(decode_picture(data.tobytes()) - seen(encode(see_through(), "PNG")).astype(int))
    for top, left in ((4, 4), (4, 34), (24, 4), (24, 34)):  # the quarters without their edges
        assert off[top : top + 12, left : left + 22].max() <= 6


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("associated", [False, True])
@pytest.mark.parametrize("planar", [False, True])
def test_a_tiff_with_declared_alpha_lies_on_white(
    deep: bool, associated: bool, planar: bool
) -> None:
    four = np.array(see_through())
    stored = four.copy()
    if associated:
        stored[..., :3] = np.round(four[..., :3] * (four[..., 3:] / 255))
    stored = wide(stored) if deep else stored
    data = tiff(stored, 2, (1 if associated else 2,), planar)
    if deep and planar:
        assert "separate planes" in reason(data)
        return
    expected = seen(encode(see_through(), "PNG"))
    assert np.abs(decode_picture(data).astype(int) - expected).max() <= 1


def test_premultiplied_colours_above_their_alpha_stay_white() -> None:
    data = tiff(np.full((8, 8, 4), (255, 255, 255, 100), np.uint8), 2, (1,))
    assert (decode_picture(data) == 255).all()


def test_a_tiff_of_planes_without_alpha() -> None:
    three = np.array(photo())
    for stored in (three, wide(three)):
        assert np.array_equal(decode_picture(tiff(stored, 2, (), True)), three[..., ::-1])


def test_transparent_colour_of_a_png() -> None:
    grey = scene().convert("L")
    assert_seen(encode(grey, "PNG", transparency=grey.getpixel((5, 5))))
    assert (decode_picture(encode(grey, "PNG", transparency=76))[:20, :30] == 255).all()
    assert_seen(encode(scene(), "PNG", transparency=(255, 0, 0)))
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE)
    assert_seen(encode(palette, "PNG", transparency=palette.getpixel((5, 5))))
    assert_seen(encode(see_through().convert("LA"), "PNG"))
    assert_seen(encode(photo().convert("1"), "PNG", transparency=1))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_exactly_the_transparent_grey_becomes_white(depth: int) -> None:
    """Of 16 bits a neighbour of the level, which looks the same, is not transparent."""
    most = 2**depth - 1
    levels = np.arange(16) if depth < 16 else 0x4000 + np.arange(16)
    row = b"".join(int(level & most).to_bytes(2, "big") for level in levels)
    if depth == 8:
        row = row[1::2]
    elif depth < 8:
        bits = "".join(f"{level & most:0{depth}b}" for level in levels.tolist())
        row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">IIBBBBB", 16, 1, depth, 0, 0, 0, 0)
    for level in {int(levels[number] & most) for number in (0, 1, -2, -1)}:
        data = png(head, zlib.compress(b"\0" + row), struct.pack(">H", level))
        shown = (levels & most) >> 8 if depth == 16 else (levels & most) * 255 // most
        expected = np.where((levels & most) == level, 255, shown)
        assert np.array_equal(decode_picture(data)[0, :, 0], expected)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("GIF", marks=gif), "PNG", pytest.param("WEBP", marks=gif)],
)
def test_animations_give_their_first_frame(kind: str) -> None:
    first = see_through()
    others = [first.rotate(180), first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=others, **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert_seen(data, tolerance=1)


def test_reading_goes_by_content_not_by_name(tmp_path: Path) -> None:
    file = tmp_path / "cat.txt"
    file.write_bytes(encode(scene(), "PNG"))
    assert read_picture(file).shape == (40, 60, 3)
    assert is_picture("a/B.JPG")
    assert not is_picture("a/b.txt")


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_where_that_is_asked_for() -> None:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (1600, 1200))
    jpeg, png = (cv2.imencode(suffix, image)[1].tobytes() for suffix in (".jpg", ".png"))
    whole = decode_picture(jpeg)
    for shortest, scale in ((1200, 1), (600, 2), (301, 2), (300, 4), (151, 4), (150, 8)):
        reduced = decode_picture(jpeg, shortest=shortest)
        assert reduced.shape == (1200 // scale, 1600 // scale, 3)
        area = cv2.resize(whole, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(reduced.astype(int) - area).max() < 6  # the same scene
    assert decode_picture(png, shortest=1).shape == whole.shape
