"""Broken, foreign and too large files: refused with a reason, before they do harm."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images.encoded import (
    HAS_AVIF,
    HAS_GIF,
    Image,
    avif,
    encode,
    exif,
    gif,
    photo,
    png,
    reason,
    scene,
    see_through,
)

from catdog_edge.errors import PictureError
from catdog_edge.images import read
from catdog_edge.images.headers import read_header
from catdog_edge.images.read import decode_picture, read_picture


def test_empty_and_foreign_files() -> None:
    assert "zero bytes" in reason(b"")
    assert "web page" in reason(b"\n<!DOCTYPE html><html>404</html>")
    assert "PDF" in reason(b"%PDF-1.7 ...")
    assert "zip" in reason(b"PK\x03\x04abc")
    assert "HEIC" in reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "video" in reason(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100))
    assert "zeros" in reason(bytes(5000))
    assert "not an image" in reason(b"cats and dogs, in a text file")
    assert "not an image" in reason(b"RIFF\x24\0\0\0WAVEfmt ")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
        pytest.param("GIF", {}, marks=gif),
        pytest.param("AVIF", {}, marks=avif),
    ],
)
def test_truncated_anywhere_is_refused(kind: str, options: dict[str, object]) -> None:
    if options.get("exif"):
        # An EXIF thumbnail is a JPEG of its own: its end marker is not the picture's.
        options = {"exif": exif(1).tobytes() + encode(scene(), "JPEG")}
    data = encode(photo(), kind, **options)
    decode_picture(data)
    for size in sorted({*range(0, 64), *range(64, len(data), len(data) // 60), len(data) - 1}):
        reason(data[:size])


def test_jpeg_padded_with_grey_is_refused() -> None:
    data = encode(photo(), "JPEG", quality=90)
    for part in (0.3, 0.5, 0.8):
        cut = data[: int(len(data) * part)]
        assert "truncated" in reason(cut + bytes(len(data) - len(cut)))  # a copy that stopped
        assert "damaged" in reason(cut + b"\xff\xd9")  # an end marker where none belongs
    cmyk = encode(photo().convert("CMYK"), "JPEG", quality=90)
    assert "damaged" in reason(cmyk[: len(cmyk) // 2] + b"\xff\xd9")


def test_a_grey_picture_is_not_taken_for_a_truncated_one() -> None:
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    assert (decode_picture(encode(grey, "JPEG")) == 128).all()
    assert (decode_picture(encode(grey, "JPEG", progressive=True)) == 128).all()
    corner = photo()
    corner.paste((128, 128, 128), (100, 60, 160, 120))
    assert decode_picture(encode(corner, "JPEG")).shape == (120, 160, 3)


def test_data_after_the_end_does_no_harm() -> None:
    data = encode(photo(), "JPEG")
    assert np.array_equal(decode_picture(data + b"motion photo" * 999), decode_picture(data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is very large, and is: all one colour."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), body)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(40_000, 20_000)
    assert len(data) < 200_000

    def never(*_: object) -> None:
        raise AssertionError("the decoder was called")

    monkeypatch.setattr(cv2, "imdecode", never)
    answer = reason(data)
    assert "40000x20000" in answer
    assert "800.0 megapixels" in answer
    assert "120.0" in answer


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "AVIF"])
def test_the_limit_holds_for_every_format(kind: str) -> None:
    for picture in (photo(), photo().convert("L") if kind != "WEBP" else see_through()):
        data = encode(picture, kind)
        header = read_header(data)
        assert (header.width, header.height) == picture.size
        assert "too large" in reason(data, max_pixels=header.width * header.height - 1)


def test_lossless_and_animated_webp_say_their_size() -> None:
    for options in ({"lossless": True}, {"save_all": True, "append_images": [scene()]}):
        header = read_header(encode(scene(), "WEBP", **options))
        assert (header.width, header.height) == (60, 40)


def test_a_file_of_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        stream.truncate(read.MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(PictureError, match="256 MiB"):
        read_picture(huge)


def test_missing_file_folder_and_forbidden(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no such file"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(PictureError, match="folder"):
        read_picture(tmp_path)
    if os.geteuid() != 0:  # root may read everything
        secret = tmp_path / "secret.jpg"
        secret.write_bytes(b"x")
        secret.chmod(0)
        with pytest.raises(PictureError, match="cannot be opened"):
            read_picture(secret)


def broken_files(count: int) -> list[tuple[str, bytes]]:
    """Truncated at every part, bits flipped, blocks overwritten, wrong endings; seeded."""
    kinds = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"]
    kinds += (["GIF"] if HAS_GIF else []) + (["AVIF"] if HAS_AVIF else [])
    whole = [(kind, encode(photo(48, 64), kind)) for kind in kinds]
    whole.append(("JPEG", encode(photo(48, 64), "JPEG", progressive=True, exif=exif(6))))
    whole.append(("PNG", encode(see_through(), "PNG")))
    rng = random.Random(0)
    files = []
    for number in range(count):
        kind, data = whole[number % len(whole)]
        ending = rng.choice(["jpg", "png", "gif", "webp", "txt", "tiff"])
        damaged = bytearray(data)
        how = number // len(whole) % 4
        if how == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        elif how == 1:
            for _ in range(rng.choice([1, 3, 20])):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif how == 2:
            for _ in range(3):  # where sizes and offsets stand
                damaged[rng.randrange(min(64, len(damaged)))] = rng.randrange(256)
        else:
            start = rng.randrange(len(damaged))
            damaged[start : start + 40] = rng.randbytes(40)
        files.append((f"{kind}-{number}.{ending}", bytes(damaged)))
    return files


def test_a_thousand_broken_files_never_end_a_run() -> None:
    refused = 0
    for name, data in broken_files(1100):
        frame, answer = None, ""
        try:
            frame = decode_picture(data, max_pixels=1_000_000)
        except PictureError as error:
            answer = str(error)
        if frame is None:
            assert answer, name
            assert "\n" not in answer, name
            refused += 1
        else:
            assert frame.dtype == np.uint8, name
            assert frame.ndim == 3, name
            assert frame.shape[2] == 3, name
    assert refused > 500
