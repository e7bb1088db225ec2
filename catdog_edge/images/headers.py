"""What the first bytes of a picture file say: its format, size, rotation and alpha.

Knows the layout of picture files and nothing of pixels: no decoder runs here, so a hostile
file costs a few table look-ups. `catdog_edge.images.read` decides with it what to refuse before
anything is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from catdog_edge.errors import PictureError
from catdog_edge.images import tiff

Kind = Literal["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "AVIF", "JPEG 2000", "PNM"]

_FOREIGN = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<!doctype html", "a web page; was it saved by a download that failed?"),
    (b"<html", "a web page; was it saved by a download that failed?"),
    (b"<svg", "an SVG drawing; save it as PNG"),
    (b"<?xml", "an XML document"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself before it is decoded.

    Attributes:
        kind: The format, by signature; the file's name plays no part.
        width: Stored width in pixels, before any rotation.
        height: Stored height in pixels.
        alpha: The file has, or may have, transparent pixels.
        orientation: EXIF orientation 1..8 that is still to be applied to the decoded pixels;
            1 where the decoder applies it itself (TIFF).
        transparent_grey: The one grey level (in the file's own bit depth) that a greyscale
            PNG declares transparent, with that bit depth.
        premultiplied: The decoder gives colours that are multiplied by alpha already.
        undeclared: The fourth channel may be alpha or something else; nothing says which.
        depth: Bits of each sample where the decoder gives more than 8.
        white: The level of white of a PNM whose levels the decoder leaves as they are, where
            it is none that fills 8 or 16 bits; otherwise 0.
    """

    kind: Kind
    width: int
    height: int
    alpha: bool = False
    orientation: int = 1
    transparent_grey: tuple[int, int] | None = None
    premultiplied: bool = False
    undeclared: bool = False
    depth: int = 16
    white: int = 0

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(data: bytes) -> Header:
    """Read the header of a picture file.

    Args:
        data: The whole file; the ends of JPEG, PNG and WebP are checked too.

    Raises:
        PictureError: The file is empty, truncated, damaged, or no picture; the message is the
            reason, short, without the name of the file.
    """
    if not data:
        raise PictureError("empty file (zero bytes)")
    for signature, reader in _READERS:
        if data.startswith(signature):
            try:
                header = reader(data)
            except (struct.error, IndexError) as error:
                raise PictureError("truncated: it ends inside its header") from error
            if header.width <= 0 or header.height <= 0:
                raise PictureError(f"damaged: its header says {header.width}x{header.height}")
            return header
    if data[4:8] == b"ftyp":
        return _avif(data)
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what in _FOREIGN:
        if start.startswith(signature.lower()):
            raise PictureError(f"not a picture: it is {what}")
    if not any(data[:4096]):
        raise PictureError("not a picture: it begins with nothing but zeros")
    raise PictureError("not a picture of a known format (JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF)")


def _jpeg(data: bytes) -> Header:
    width = height = 0
    orientation = 1
    at = 2
    while True:
        if data[at] != 0xFF:
            raise PictureError("damaged: a JPEG marker is missing")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise PictureError("truncated: a JPEG without picture data")
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            lines, columns = struct.unpack_from(">HH", data, at + 3)
            width, height = max(width, columns), max(height, lines)
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 8 : at + length])
        elif marker == 0xDA:
            break
        at += length
    # In the compressed part 0xFF is followed by 0x00 or a restart marker, so the end marker
    # cannot occur by chance. Some decoders fill what is missing with grey and say nothing.
    if data.find(b"\xff\xd9", at) < 0:
        raise PictureError("truncated: the end marker of the JPEG is missing")
    return Header("JPEG", width, height, orientation=orientation)


def _png(data: bytes) -> Header:
    width = height = depth = colour = 0
    orientation = 1
    grey = None
    alpha = False
    for name, start, length in _png_chunks(data):
        if name == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", data, start)
            alpha = colour in (4, 6)
        elif name == b"tRNS":
            alpha = True
            if colour == 0 and length >= 2:
                grey = (struct.unpack_from(">H", data, start)[0], depth)
        elif name == b"eXIf":
            orientation = _exif_orientation(data[start : start + length])
    return Header("PNG", width, height, alpha, orientation, grey)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk, its checksum compared."""
    at = 8
    while True:
        if at + 12 > len(data):
            raise PictureError("truncated: the last chunk of the PNG is missing")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise PictureError("truncated: the PNG ends inside a chunk")
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(memoryview(data)[at + 4 : end]) != checksum:
            raise PictureError("damaged: a checksum of the PNG is wrong")
        yield name, at + 8, length
        if name == b"IEND":
            return
        at = end + 4


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, alpha=True)


def _webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if data[8:12] != b"WEBP":
        raise PictureError("not a picture: a RIFF file (sound or video?)")
    if len(data) < size + 8:
        raise PictureError("truncated: the WebP is shorter than its header says")
    name = data[12:16]
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        alpha = bool(bits >> 28 & 1)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha)
    if name != b"VP8X":
        raise PictureError("damaged: the WebP has no picture chunk")
    if len(data) < 30:
        raise PictureError("truncated: it ends inside its header")
    flags = data[20]
    width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    orientation = 1
    if flags & 0x08:
        exif = data.find(b"EXIF", 30)
        if exif >= 0:
            (length,) = struct.unpack_from("<I", data, exif + 4)
            block = data[exif + 8 : exif + 8 + length]
            orientation = _exif_orientation(block.removeprefix(b"Exif\0\0"))
    return Header("WebP", width + 1, height + 1, bool(flags & 0x10), orientation)


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    # The fourth byte of a 32-bit bitmap is padding far more often than alpha.
    return Header("BMP", width, abs(height))


def _tiff(data: bytes) -> Header:
    seen = tiff.layout(data)
    return Header(
        "TIFF",
        seen.width,
        seen.height,
        seen.alpha,
        premultiplied=seen.premultiplied,
        undeclared=seen.undeclared,
    )


def _pnm(data: bytes) -> Header:
    numbers: list[int] = []
    kind = data[1:2]
    wanted = 2 if kind in b"14" else 3  # one bit a pixel has no level of white
    for line in data[2:4096].split(b"\n"):
        for token in line.split(b"#")[0].split():
            if not token.isdigit() or len(token) > 9:
                raise PictureError("not a picture of a known format")
            numbers.append(int(token))
            if len(numbers) == wanted:
                width, height, white = (*numbers, 255)[:3]
                if not 0 < white < 2**16:
                    raise PictureError(f"damaged: its header says that white is {white}")
                # OpenCV brings numbers in words up to 255 by itself.
                filled = white in (255, 65535) or (kind in b"23" and white < 255)
                return Header("PNM", width, height, white=0 if filled else white)
    raise PictureError("truncated: it ends inside its header")


def _jpeg2000(data: bytes) -> Header:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise PictureError("truncated: a JPEG 2000 without picture data")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    width, height = right - left, bottom - top
    boxes = data[:at]  # none before a bare codestream
    if channels in (1, 3):
        # Of a bare grey codestream OpenCV makes no colours, so it is asked for as it is.
        return Header("JPEG 2000", width, height, alpha=channels == 1 and not boxes)
    if channels != 4:
        what = "greyscale and alpha" if channels == 2 else f"{channels} channels"
        raise _unread_jpeg2000(what)
    colour = boxes.find(b"colr")
    if colour >= 0:
        method, space = boxes[colour + 4], boxes[colour + 7 : colour + 11]
        profile = boxes[colour + 23 : colour + 27]  # an ICC profile names its colours at 16
        if (method == 1 and space != b"\0\0\0\x10") or (method != 1 and profile != b"RGB "):
            raise _unread_jpeg2000("four channels that are not RGB and alpha")
    definitions = boxes.find(b"cdef")
    if definitions >= 0:
        (count,) = struct.unpack_from(">H", boxes, definitions + 4)
        for number in range(min(count, 4)):
            index, kind, _ = struct.unpack_from(">HHH", boxes, definitions + 6 + 6 * number)
            if kind != (1 if index == 3 else 0):
                raise _unread_jpeg2000("a fourth channel that is not plain alpha")
    return Header("JPEG 2000", width, height, True, undeclared=bool(boxes) and definitions < 0)


def _unread_jpeg2000(what: str) -> PictureError:
    return PictureError(f"a JPEG 2000 with {what} is not read; save it as PNG")


def _avif(data: bytes) -> Header:
    brands = {data[at : at + 4] for at in range(8, min(len(data), 64), 4)}
    if data[8:12] in _HEIC and not brands & {b"avif", b"avis"}:
        raise PictureError("HEIC is not supported; save it as JPEG")
    if not brands & {b"avif", b"avis"}:
        raise PictureError("not a picture: it is a video")
    sizes = [
        struct.unpack_from(">II", data, at + 8)
        for at in _positions(data, b"ispe")
        if at + 16 <= len(data)
    ]
    if not sizes:
        raise PictureError("damaged: the AVIF does not say its size")
    # A grid has the size of its tiles and of the whole: the limit must hold for the largest.
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    # In the configuration of each coded item: one bit says more than 8, the next one 12.
    depths = [
        8 + 2 * (data[at + 6] >> 6 & 1) + 2 * (data[at + 6] >> 5 & 1)
        for at in _positions(data, b"av1C")
        if at + 6 < len(data)
    ]
    turns = mirror = 0
    for at in _positions(data, b"irot"):
        turns = data[at + 4] & 3 if at + 4 < len(data) else 0
    for at in _positions(data, b"imir"):
        mirror = (data[at + 4] & 1) + 1 if at + 4 < len(data) else 0
    # Anticlockwise quarter turns, then a mirror (1: top to bottom, 2: left to right), as EXIF.
    orientation = {
        (0, 0): 1, (1, 0): 8, (2, 0): 3, (3, 0): 6,
        (0, 1): 4, (1, 1): 5, (2, 1): 2, (3, 1): 7,
        (0, 2): 2, (1, 2): 7, (2, 2): 4, (3, 2): 5,
    }[turns, mirror]  # fmt: skip
    alpha = b"auxC" in data[:4096]
    return Header("AVIF", width, height, alpha, orientation, depth=max(depths, default=8))


def _positions(data: bytes, name: bytes) -> Iterator[int]:
    """Where the properties called `name` stand in the head of an AVIF file."""
    at = data.find(name, 0, 65536)
    while at >= 0:
        yield at
        at = data.find(name, at + 4, 65536)


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block; 1 where there is none or the block is damaged."""
    if block[:2] not in (b"II", b"MM"):
        return 1
    try:
        orientation = tiff.first_directory(block).get(0x112, 1)
    except (struct.error, PictureError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


_READERS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _jpeg2000),
    (b"\xff\x4f\xff\x51", _jpeg2000),
    *((b"P%d" % number, _pnm) for number in range(1, 7)),
)
