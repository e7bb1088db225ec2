"""Unsupported is not damaged: what is intact but not read is named, with what to save it as."""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib

import numpy as np
import pytest
from support.encoded import encode, photo, reason, scene, tiff

from catdog_edge.errors import PictureError
from catdog_edge.images.read import decode_picture, is_picture

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
