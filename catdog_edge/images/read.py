"""Read image files to the pixels that an image viewer shows.

Training, calibration, checks and the runtime all read with these functions, so a photograph has
the same pixels everywhere. docs/preprocessing.md lists supported formats, rejected ones, and the
handling of transparency, rotation, animations and deep colour.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.errors import DamagedError, PictureError
from catdog_edge.images.bmp import decode_masked
from catdog_edge.images.decoder_warnings import decode_with_verdict
from catdog_edge.images.headers import Header, read_header, unsupported
from catdog_edge.images.preprocess import Image

MAX_PIXELS = 120_000_000
"""Largest image that is decoded: 120 megapixels (12000 x 10000), 360 MB as BGR."""

MAX_BYTES = 256 * 2**20  # largest file that is read at all: 256 MiB

_READ = ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .dib .tif .tiff .avif .ppm .pgm .pbm"
_REFUSED = ".jp2 .j2k .jxl .heic .heif .ico .tga .psd .pcx .exr .hdr .qoi .dds"
_RAW = ".dng .cr2 .cr3 .nef .arw"
PICTURE_SUFFIXES = frozenset(f"{_READ} {_REFUSED} {_RAW}".split())
"""Lower-case suffixes of images, also of those that are refused by name: a folder of HEIC files is
not an empty folder. Reading goes by content, not by suffix."""


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Check whether a file has the suffix of an image, without opening it."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def read_picture(path: str | os.PathLike[str], *, keep_damaged: bool = False) -> Image:
    """Read an image file, whatever its suffix; see `decode_picture`.

    Returns:
        `uint8 [H,W,3]`, BGR, 0..255, upright, on white where transparent.

    Raises:
        PictureError: It cannot be read; the message is the reason without the name.

    Examples:
        >>> read_picture("cat.jpg").shape
        (480, 640, 3)
    """
    return decode_picture(read_bytes(path), keep_damaged=keep_damaged)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; `PictureError` if it cannot be read."""
    file = Path(path)
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PictureError("not an image: it is a folder")
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe waits for its other end.
            raise PictureError("not an image file: it is a pipe, a socket or a device")
        with file.open("rb") as stream:
            # One byte more than allowed shows that it is too large, whatever its status says.
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise PictureError("there is no such file") from error
    except OSError as error:
        raise PictureError(f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise PictureError("a file name cannot contain a zero byte") from error
    check_size(len(data))
    return data


def decode_picture(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    keep_damaged: bool = False,
    shortest: int | None = None,
) -> Image:
    """Decode the bytes of an image file.

    The decoder's own messages do not reach stderr; see `catdog_edge.images.decoder_warnings`.

    Args:
        data: The whole file.
        max_pixels: Refuse an image with more pixels than this, before decoding.
        keep_damaged: Return the pixels of a JPEG or TIFF that the decoder reports as corrupt.
            A truncated file is still rejected.
        shortest: Decode a JPEG at 1/2, 1/4 or 1/8 of its size if no side gets shorter than
            this: three to four times faster for 12 megapixels.

    Returns:
        `uint8 [H,W,3]`, BGR, 0..255, contiguous, upright, on white where transparent.

    Raises:
        PictureError: It cannot be read; the message is the reason. A `DamagedError` if the
            decoder reports it as corrupt.
    """
    check_size(len(data))
    header = read_header(data)
    if (size := header.width * header.height) > max_pixels:
        what = f"{header.width}x{header.height} is {size / 1e6:,.1f} megapixels"
        raise PictureError(f"too large: {what}, the limit is {max_pixels / 1e6:,.1f}")
    if header.bmp is not None and header.bmp.masks is not None:
        pixels = _blend_with_white(decode_masked(data, header.bmp), header)
    else:
        pixels, damaged = _imdecode(data, header, shortest)
        if damaged and not keep_damaged:
            raise DamagedError(f"damaged: corrupt {header.kind} data; --keep-damaged uses it")
        if header.alpha:
            pixels = _blend_with_white(pixels, header)
    return np.ascontiguousarray(_upright(pixels, header.orientation))


def check_size(size: int) -> None:
    """Raise `PictureError` for a file of more than `MAX_BYTES`, before it is read or unpacked."""
    if size > MAX_BYTES:
        raise PictureError(f"too large: the limit is {MAX_BYTES // 2**20} MiB a file")


def _imdecode(data: bytes, header: Header, shortest: int | None) -> tuple[npt.NDArray[Any], bool]:
    colour = cv2.IMREAD_COLOR
    if shortest is not None and header.kind == "JPEG":
        side = min(header.width, header.height)
        scale = next((scale for scale in (8, 4, 2) if side >= scale * shortest), 1)
        colour = cv2.IMREAD_COLOR if scale == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{scale}")
    flags = colour | (0 if header.kind == "TIFF" else cv2.IMREAD_IGNORE_ORIENTATION)
    if header.alpha:
        flags = cv2.IMREAD_UNCHANGED
    encoded = np.frombuffer(data, np.uint8)
    try:
        pixels, damaged = decode_with_verdict(lambda: cv2.imdecode(encoded, flags))
    except (cv2.error, MemoryError):
        pixels, damaged = None, True
    if pixels is None or pixels.size == 0:
        if header.variant:
            raise unsupported(f"a {header.variant} JPEG", "an ordinary JPEG")
        kind = f"of a kind that OpenCV {cv2.__version__} does not read"
        raise PictureError(f"the {header.kind} does not decode: damaged, truncated or {kind}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise unsupported(f"a {header.kind} with {pixels.dtype} pixels", "PNG")
    return pixels, damaged


def _blend_with_white(pixels: npt.NDArray[Any], header: Header) -> Image:
    """Blend transparent pixels with white: `uint8` or `uint16`, 1, 3 or 4 channels, to BGR."""
    transparent = None
    if header.transparent_grey is not None and pixels.ndim == 2:
        # OpenCV ignores the transparent level of a greyscale PNG.
        level, depth = header.transparent_grey
        transparent = pixels == (level if depth >= 8 else level * 255 // (2**depth - 1))
    if pixels.dtype == np.uint16:
        # The high bits, as OpenCV itself does when it reads 16 bits as 8.
        pixels = (pixels >> (header.depth - 8)).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    if transparent is not None:
        pixels[transparent] = 255
    if pixels.shape[2] == 3:
        return np.asarray(pixels, np.uint8)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    if (alpha == 255).all():
        return np.asarray(colour, np.uint8)
    opaque = alpha.astype(np.uint16)
    if header.premultiplied:
        # Colours above their alpha are invalid, but occur.
        return np.asarray(np.minimum(colour + (255 - opaque), 255), np.uint8)
    return np.asarray((colour * opaque + (255 * (255 - opaque) + 127)) // 255, np.uint8)


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation (Exif 2.32, tag 0x0112: where row 0 and column 0 are seen)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
