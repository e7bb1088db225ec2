"""Images for tests of the image room, and what a person sees of them by an independent decoder."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from catdog_edge.errors import PictureError
from catdog_edge.images.read import decode_picture

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

HAS_GIF = cv2.haveImageWriter("x.gif")
HAS_AVIF = cv2.haveImageWriter("x.avif")
gif = pytest.mark.skipif(not HAS_GIF, reason="this OpenCV reads no GIF (4.11 and later do)")
avif = pytest.mark.skipif(not HAS_AVIF, reason="this OpenCV was built without AVIF")


def scene(height: int = 40, width: int = 60) -> Image.Image:
    """Four quarters of different colours: every rotation and mirror of it is another picture."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (200, 150, 100)
    return Image.fromarray(pixels)


def see_through() -> Image.Image:
    picture = np.array(scene().convert("RGBA"))
    picture[:20, :30, 3] = 0
    picture[:20, 30:, 3] = 128
    return Image.fromarray(picture)


def photo(height: int = 120, width: int = 160) -> Image.Image:
    """Something that does not compress to nothing, without a flat corner."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x112] = orientation
    return block


def seen(data: bytes) -> np.ndarray:
    """What a person sees of a file, by Pillow: upright, on white, BGR."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.mode in ("RGBA", "LA", "PA", "P") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        picture = white
    return np.array(picture.convert("RGB"))[..., ::-1]


def assert_seen(data: bytes, tolerance: int = 3) -> None:
    frame = decode_picture(data)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    expected = seen(data)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).max() <= tolerance


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(PictureError) as caught:
        decode_picture(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tiff(
    pixels: np.ndarray,
    photometric: int,
    extra: tuple[int, ...] = (),
    planar: bool = False,
    sample_format: int = 1,
    **changed: int,
) -> bytes:
    """An uncompressed TIFF 6.0 of `[H,W]` or `[H,W,C]`, channels in the order of the file.

    `changed` are tags by number, like `t259=7`, which then say something else than the pixels.
    """
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    strips = np.split(pixels, channels, axis=2) if planar else [pixels]
    body = [np.ascontiguousarray(strip).tobytes() for strip in strips]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [pixels.itemsize * 8] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", []),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in body]),
        284: ("H", [2 if planar else 1]),
        **({338: ("H", list(extra))} if extra else {}),
        339: ("H", [sample_format] * channels),
        **{int(tag[1:]): ("H", [value]) for tag, value in changed.items()},
    }
    tags = dict(sorted(tags.items()))
    at = 8 + 2 + 12 * len(tags) + 4 + 64  # room for the values that do not fit into their tag
    tags[273] = ("I", [at + sum(map(len, body[:index])) for index in range(len(body))])
    table, values = struct.pack("<2sHIH", b"II", 42, 8, len(tags)), b""
    for tag, (form, numbers) in tags.items():
        packed = struct.pack(f"<{len(numbers)}{form}", *numbers)
        table += struct.pack("<HHI", tag, 3 if form == "H" else 4, len(numbers))
        if len(packed) > 4:
            table += struct.pack("<I", 8 + 2 + 12 * len(tags) + 4 + len(values))
            values += packed
        else:
            table += packed.ljust(4, b"\0")
    assert len(values) <= 64
    return table + b"\0\0\0\0" + values.ljust(64, b"\0") + b"".join(body)


def png(head: bytes, body: bytes, transparent: bytes = b"") -> bytes:
    """A PNG of these chunks; `body` is compressed."""
    chunks = [(b"IHDR", head), (b"tRNS", transparent), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
        if data or name == b"IEND"
    )
