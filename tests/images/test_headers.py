"""Headers of image files: the rotation that Exif asks for, and what is intact but not read."""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib

import numpy as np
import pytest
from support.images.encoded import (
    assert_seen,
    avif,
    encode,
    exif,
    photo,
    reason,
    scene,
    see_through,
    tiff,
)

from catdog_edge.errors import PictureError
from catdog_edge.images.headers import read_header
from catdog_edge.images.read import _upright, decode_picture, is_picture


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


JFIF = "/9j/4AAQSkZJRgABAQAAAQABAAD/"
TWELVE_BITS = base64.b64decode(
    JFIF + "2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsK"
    "DAkKCgr/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADP/EACEQAAAEBQUAAAAAAAAAAAAAAAwWFxkI"
    "GBobZx4mK0ZJ/9oACAEBAAA/AD945jHMep1Cl54vKyM2Rmdj2wqT3nXikFwtBDLqkbWORjuuvUCXuj//2Q=="
)
"""8x8, grey, 12 bits: white, black, grey."""

LOSSLESS = base64.b64decode(
    JFIF + "wwALCAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAgH/9oACAEBAAEAAN/EAAIAAQAAgAQAKAAUAAoA"
    "BQA//9k="
)
"""8x8, grey: the upper left quarter is 255, the lower right one 128, the others 0."""

ARITHMETIC = base64.b64decode(
    JFIF + "2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/yQALCAAIAAgBAREA/8wABgAQEAX/2gAIAQEAAD8A/g/qYMELXOZSsldwnbl3rfxUaN5ACbP/2Q=="
)
"""The same as `LOSSLESS`, nearly."""


def patched(marker: int, precision: int = 8, lines: int | None = None) -> bytes:
    """A JPEG whose frame header says something else than its data are."""
    data = bytearray(encode(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, precision
    if lines is not None:
        data[at + 5 : at + 7] = struct.pack(">H", lines)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (TWELVE_BITS, "a 12-bit JPEG"),
        (patched(0xC1, 12), "a 12-bit JPEG"),
        (patched(0xC3, 16), "a 16-bit lossless JPEG"),
        (patched(0xC5), "a hierarchical JPEG"),
        (patched(0xCD), "a hierarchical JPEG"),
        (patched(0xF7), "JPEG-LS"),
        (patched(0xC0, lines=0), "tells its height only at its end"),
    ],
)
def test_kinds_of_jpeg(data: bytes, what: str) -> None:
    why = reason(data)
    assert what in why
    assert "is not supported; save it as " in why
    assert "damaged" not in why


@pytest.mark.parametrize(
    ("data", "name"), [(LOSSLESS, "lossless"), (ARITHMETIC, "arithmetic-coded")]
)
def test_kinds_of_jpeg_that_some_builds_of_opencv_decode(
    data: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.zeros((8, 8, 1), int)
    expected[:4, :4], expected[4:, 4:] = 255, 128
    with contextlib.suppress(PictureError):
        assert np.abs(decode_picture(data) - expected).max() < 40
    monkeypatch.setattr("cv2.imdecode", lambda *_: None)
    assert f"a {name} JPEG is not supported; save it as an ordinary JPEG" in reason(data)


BYTES = np.zeros((8, 8), np.uint8)
THREE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tiff(BYTES, 1, t258=4), "greyscale of 4 bits"),
        (tiff(BYTES, 1, t258=2), "greyscale of 2 bits"),
        (tiff(BYTES, 1, t258=12), "greyscale of 12 bits"),
        (tiff(BYTES, 3, t258=2), "palette of 2 bits"),
        (tiff(np.zeros((8, 8, 3), np.uint32), 2), "RGB of 32+32+32 bits"),
        (tiff(np.zeros((8, 8, 4), np.uint16), 5), "CMYK of 16+16+16+16 bits"),
        (tiff(np.zeros((8, 8), np.uint16), 3), "palette of 16 bits"),
        (tiff(np.zeros((8, 8, 3), np.float32), 2, sample_format=3), "floating-point"),
        (tiff(np.zeros((8, 8), np.int16), 1, sample_format=2), "signed"),
        (tiff(np.zeros((8, 8, 2), np.uint8), 1, (2,)), "greyscale of 8+8 bits"),
        (tiff(np.zeros((8, 8, 5), np.uint8), 2, (2, 0)), "RGB of 8+8+8+8+8 bits"),
        (tiff(np.zeros((8, 8, 5), np.uint8), 5, (2,)), "CMYK of 8+8+8+8+8 bits"),
        (tiff(THREE, 8), "colour space 8 of 8+8+8 bits"),
        (tiff(THREE, 32803), "colour space 32803 of 8+8+8 bits"),
        (tiff(THREE, 6), "compression 1"),
        (tiff(np.zeros((8, 8, 4), np.uint8), 2), "not declared as alpha"),
        (tiff(np.zeros((8, 8, 4), np.uint8), 2, (0,)), "not declared as alpha"),
        (tiff(np.zeros((8, 8, 4), np.uint16), 2, (2,), planar=True), "separate planes"),
        (tiff(THREE, 2, t259=50000), "compression 50000 (Zstandard)"),
        (tiff(THREE, 2, t259=6), "compression 6 (old JPEG)"),
        (tiff(THREE, 2, t259=34925), "compression 34925"),
        (tiff(BYTES, 1, t259=4), "compression 4"),
    ],
)
def test_kinds_of_tiff(data: bytes, why: str) -> None:
    assert reason(data).startswith("a TIFF with ")
    assert why in reason(data)
    assert "is not supported; save it as PNG" in reason(data)


def test_a_raw_photograph_is_not_its_small_preview() -> None:
    for data in (tiff(THREE, 2, t254=1), tiff(THREE, 2, t50706=1)):
        assert "a camera raw file is not supported; save it as JPEG" in reason(data)
    assert "a camera raw file" in reason(b"II*\0\x10\0\0\0CR\2\0" + bytes(200))
    assert "a camera raw file" in reason(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100))


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\1\0\1\0\x10\x10", "ICO"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P3\n2 2\n255\n", "PNM as text"),
        (b"P7\nWIDTH 2", "PAM"),
        (b"#?RADIANCE\n", "Radiance"),
        (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"II+\0\x08\0\0\0", "BigTIFF"),
        (b"\0\0\2\0" + bytes(8) + b"\x10\0\x10\0\x18\0", "TGA"),
        (b"\0\0\x0a\0" + bytes(8) + b"\x10\0\x10\0\x20\x08", "TGA"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    ],
)
def test_other_formats(start: bytes, name: str) -> None:
    why = reason(start + bytes(200))
    assert name in why
    assert "is not supported; save it as " in why


@pytest.mark.parametrize("white", [1, 100, 254, 4095])
def test_a_pnm_whose_levels_opencv_leaves_as_they_are(white: int) -> None:
    data = b"P5\n# by hand\n2 2\n%d\n" % white + bytes(8)
    assert f"a PNM whose white is {white} is not supported" in reason(data)
    assert "truncated" in reason(b"P5\n2 2\n")


def test_a_png_in_apples_form() -> None:
    data = encode(scene(), "PNG")
    chunk = struct.pack(">I4s4sI", 4, b"CgBI", b"\x50\0\x20\6", 0x2BD523CD)
    chunk = chunk[:12] + struct.pack(">I", zlib.crc32(chunk[4:12]))
    assert "CgBI" in reason(data[:8] + chunk + data[8:])


def test_files_that_are_refused_by_name_are_found_in_folders() -> None:
    assert is_picture("IMG_0001.HEIC")
    assert is_picture("shot.cr2")
    assert not is_picture("notes.txt")


def test_an_unknown_format_is_refused_with_those_that_are_read() -> None:
    for data in (b"no header of any image", b"P6 wide 20 255\n"):
        with pytest.raises(PictureError, match=r"known format \(JPEG, .*AVIF, PNM\)"):
            read_header(data)
