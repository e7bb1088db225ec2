"""The rotation that Exif asks for is applied, wherever the Exif data are."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from support.encoded import assert_seen, avif, encode, exif, photo, scene, see_through

from catdog_edge.images.headers import read_header
from catdog_edge.images.read import _upright, decode_picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation(kind: str, orientation: int) -> None:
    data = encode(scene(), kind, exif=exif(orientation))
    assert_seen(data)
    assert decode_picture(data).shape[:2] == ((40, 60) if orientation < 5 else (60, 40))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_with_alpha(orientation: int) -> None:
    assert_seen(encode(see_through(), "PNG", exif=exif(orientation)))
    assert_seen(encode(see_through(), "WEBP", lossless=True, exif=exif(orientation)))


@avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_rotation(orientation: int) -> None:
    assert_seen(encode(scene(), "AVIF", exif=exif(orientation)))


@avif
def test_every_turn_and_mirror_of_an_avif() -> None:
    pixels = np.arange(6).reshape(2, 3, 1)
    data = bytearray(encode(scene(), "AVIF", exif=exif(5)))
    turn, mirror = data.index(b"irot") + 4, data.index(b"imir") + 4
    for turns in range(4):
        for axis in range(2):
            data[turn], data[mirror] = turns, axis
            seen = np.flip(np.rot90(pixels, turns), axis)
            found = _upright(pixels, read_header(bytes(data)).orientation)
            assert np.array_equal(found, seen), (turns, axis)


def test_broken_exif_is_no_rotation() -> None:
    block = exif(6).tobytes()
    data = encode(scene(), "JPEG", exif=block[:16] + b"\xff" * (len(block) - 16))
    assert decode_picture(data).shape == (40, 60, 3)


def app1(*segments: bytes) -> bytes:
    """A JPEG with these Exif segments."""
    data = encode(photo(), "JPEG", quality=95)
    headers = [b"\xff\xe1" + struct.pack(">H", len(s) + 8) + b"Exif\0\0" + s for s in segments]
    return data[:2] + b"".join(headers) + data[2:]


def block(orientation: int, padding: int = 0) -> bytes:
    """An Exif block whose directory stands behind `padding` bytes."""
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + padding) + bytes(padding) + b"\1\0" + entry + bytes(4)
    )


def cut(data: bytes, size: int = 65527) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("padding", [0, 70_000, 140_000])
def test_exif_continued_in_the_next_segments(orientation: int, padding: int) -> None:
    segments = cut(block(orientation, padding))
    assert len(segments) == 1 + padding // 65_000
    assert_seen(app1(*segments))


def test_exif_cut_in_the_middle_of_its_directory() -> None:
    assert_seen(app1(*cut(block(6), 13)))


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ([block(6), block(1)], 6),
        ([block(1), block(6)], 1),
        ([block(8), block(3), block(6)], 8),
        ([b"II*\0\xff\xff\0\0", block(6)], 6),  # its directory would be behind its end
        ([b"no Exif at all", block(6)], 6),
        ([block(9), block(6)], 1),
        ([b"", block(6)], 6),
    ],
)
def test_the_first_valid_exif_counts(segments: list[bytes], orientation: int) -> None:
    assert read_header(app1(*segments)).orientation == orientation


def test_two_exif_segments_are_seen_as_by_others() -> None:
    assert_seen(app1(block(6), block(3)))
    assert_seen(app1(block(1), block(3)))


def test_letters_that_look_like_a_chunk_rotate_no_webp() -> None:
    """The name of a chunk is looked for where chunks begin, not among the pixels."""
    data = encode(see_through(), "WEBP", lossless=True, exif=exif(6))
    at = data.index(b"VP8L")
    fake = b"ICCP" + struct.pack("<I", 64) + (b"EXIF" + struct.pack("<I", 40) + block(3)).ljust(64)
    size = struct.unpack_from("<I", data, 4)[0] + len(fake)
    data = data[:4] + struct.pack("<I", size) + data[8:at] + fake + data[at:]
    assert read_header(data).orientation == 6


def test_of_two_exif_chunks_of_a_png_the_first_counts() -> None:
    data = encode(scene(), "PNG", exif=exif(6))
    start = data.index(b"eXIf") - 4
    size = struct.unpack_from(">I", data, start)[0] + 12
    other = encode(scene(), "PNG", exif=exif(3))
    assert read_header(data[: start + size] + other[start:]).orientation == 6


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_the_tag_in_either_byte_order_and_size(order: str, kind: int) -> None:
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *((6, 0) if kind == 3 else (6,)))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, 1)
    entry = struct.pack(order + "HHI", 0x112, kind, 1) + value
    assert read_header(app1(head + entry + bytes(4))).orientation == 6


def test_a_rotated_frame_is_contiguous_and_turned_the_right_way() -> None:
    upright = decode_picture(app1(block(1)))
    turned = decode_picture(app1(block(6)))
    assert turned.flags.c_contiguous
    assert np.array_equal(turned, np.rot90(upright, -1))
