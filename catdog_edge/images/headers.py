"""Read headers of image files: format, size, rotation, alpha; and reject unsupported kinds.

No decoder runs here, so a malicious file costs a few table look-ups. Kinds that OpenCV does not
decode, or decodes in wrong colours, are rejected by name: unsupported is not damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from catdog_edge.errors import PictureError
from catdog_edge.images.bmp import BmpHeader, read_bmp_header

Format = Literal["JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "AVIF", "PNM"]

_FOREIGN: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    ((b"<!doctype html", b"<html"), "a web page; was it saved by a download that failed?"),
    (b"<svg", "an SVG drawing; save it as PNG"),
    (b"<?xml", "an XML document"),
    (b"\x1ae\xdf\xa3", "a video"),
)
"""Beginnings, in lower case, of what is no image."""

_UNSUPPORTED = {
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\0\0\0\x0cJXL ", b"\xff\x0a"),
    "JPEG XR": (b"II\xbc",),
    "PNM as text": (b"P1", b"P2", b"P3"),
    "PAM": (b"P7\n",),
    "PFM": (b"PF", b"Pf"),
    "PCX": (b"\x0a\x05\x01",),
    "QOI": (b"qoif",),
    "DDS": (b"DDS ",),
    "OpenEXR": (b"v/1\x01",),
    "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
    "PostScript": (b"%!PS",),
    "an icon (ICO)": (b"\0\0\x01\0",),
    "a Photoshop file": (b"8BPS",),
    "a camera raw file": (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0"),
}
"""Formats that OpenCV does not decode, or without a verdict on damage, and how they begin."""

_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_JPEG_KINDS = {0xC3: "lossless", 0xC9: "arithmetic-coded", 0xCA: "arithmetic-coded"}
_TIFF_KINDS = {
    *((photometric, (bits,)) for photometric in (0, 1) for bits in (1, 8, 16)),
    *((2, (bits,) * samples) for samples in (3, 4) for bits in (8, 16)),
    *((3, (bits,)) for bits in (1, 4, 8)),
    *((5, (8,) * 4), (6, (8,) * 3)),
}
"""Colour space (PhotometricInterpretation) and bits of each channel that OpenCV decodes right."""

_TIFF_COLOURS = {0: "greyscale", 1: "greyscale", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_TIFF_COMPRESSIONS = {6: "old JPEG", 34712: "JPEG 2000", 50000: "Zstandard", 50001: "WebP"}


@dataclass(frozen=True)
class Header:
    """The header of an image file; `kind` is determined by its signature."""

    kind: Format
    width: int  # as stored, before any rotation
    height: int
    alpha: bool = False  # the file has, or may have, transparent pixels
    orientation: int = 1  # Exif, 1..8, to apply to the decoded pixels
    transparent_grey: tuple[int, int] | None = None  # level and bit depth, of a greyscale PNG
    premultiplied: bool = False  # the decoder returns colours already multiplied by alpha
    depth: int = 16  # bits per sample if the decoder returns more than 8
    variant: str = ""  # a kind of JPEG that only some builds of OpenCV decode; otherwise empty
    bmp: BmpHeader | None = None


def unsupported(what: str, remedy: str = "PNG or JPEG") -> PictureError:
    """Return the error for an image that is intact, but of an unsupported kind."""
    return PictureError(f"{what} is not supported; save it as {remedy}")


def read_header(data: bytes) -> Header:
    """Read the header of an image file, and check that JPEG, PNG and WebP are complete.

    Raises:
        PictureError: The file is empty, truncated, damaged, unsupported, or not an image.

    Examples:
        >>> read_header(Path("cat.jpg").read_bytes()).orientation
        6
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
    for what, signatures in _UNSUPPORTED.items():
        if data.startswith(signatures):
            raise unsupported(what)
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what in _FOREIGN:
        if start.startswith(signature):
            raise PictureError(f"not an image: it is {what}")
    if not any(data[:4096]):
        raise PictureError("not an image: it begins with nothing but zeros")
    # TGA has no signature at its beginning: types of colour map and image, then bits a pixel.
    is_tga = len(data) > 18 and data[1] < 2 and data[2] in (1, 2, 3, 9, 10, 11)
    if data.endswith(b"TRUEVISION-XFILE.\0") or (is_tga and data[16] in (8, 16, 24, 32)):
        raise unsupported("TGA")
    raise _unknown()


def _jpeg(data: bytes) -> Header:
    width = height = 0
    variant = ""
    exif: list[bytes] = []
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
            raise PictureError("truncated: a JPEG without image data")
        (length,) = struct.unpack_from(">H", data, at)
        if marker == 0xF7:
            raise unsupported("JPEG-LS")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, lines, columns = struct.unpack_from(">BHH", data, at + 2)
            if not lines:
                raise unsupported("a JPEG that tells its height only at its end")
            width, height = max(width, columns), max(height, lines)
            kinds = [f"{bits}-bit"] if bits != 8 else []
            kinds += [_JPEG_KINDS.get(marker, "hierarchical")] if marker > 0xC2 else []
            variant = " ".join(kinds)
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            exif.append(data[at + 8 : at + length])
        elif marker == 0xDA:
            break
        at += length
    # In the compressed part 0xFF is followed by 0x00 or a restart marker, so the end marker
    # cannot occur by chance.
    if data.find(b"\xff\xd9", at) < 0:
        raise PictureError("truncated: the end marker of the JPEG is missing")
    return Header("JPEG", width, height, orientation=_orientation(exif), variant=variant)


def _png(data: bytes) -> Header:
    width = height = depth = colour = 0
    exif: list[bytes] = []
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
            exif.append(data[start : start + length])
        elif name == b"CgBI":
            raise unsupported("a PNG in Apple's own form (CgBI)")
    return Header("PNG", width, height, alpha, _orientation(exif), grey)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of each chunk; checks its checksum."""
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
        raise PictureError("not an image: a RIFF file (sound or video?)")
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
        raise PictureError("damaged: the WebP has no image chunk")
    if len(data) < 30:
        raise PictureError("truncated: it ends inside its header")
    flags = data[20]
    width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    exif: list[bytes] = []
    at = 30
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            exif.append(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return Header("WebP", width + 1, height + 1, bool(flags & 0x10), _orientation(exif))


def _bmp(data: bytes) -> Header:
    bmp = read_bmp_header(data)
    return Header("BMP", bmp.width, bmp.height, bmp=bmp)


def _tiff(data: bytes) -> Header:
    tags = {} if data[8:10] == b"CR" else read_directory(data)
    if not tags or 50706 in tags or tags.get(254, (0,))[0] & 1:
        raise unsupported("a camera raw file", "JPEG")
    values = (tags.get(tag, (1,))[0] for tag in (259, 262, 277, 284))
    compression, photometric, samples, planar = values
    bits, extra = tags.get(258, (1,)), tags.get(338, (0,))[0]
    alpha = photometric == 2 and samples == 4
    readable = {7} if photometric == 6 else {1, 5, 7, 8, 32773, 32946}
    readable |= {2, 3, 4} if bits == (1,) else set()
    what = ""
    if any(sample_format != 1 for sample_format in tags.get(339, ())):
        what = "signed or floating-point numbers"
    elif (photometric, bits) not in _TIFF_KINDS or len(bits) != samples:
        colours = _TIFF_COLOURS.get(photometric, f"colour space {photometric}")
        what = f"{colours} of {'+'.join(map(str, bits))} bits"
    elif compression not in readable:
        name = _TIFF_COMPRESSIONS.get(compression)
        what = f"compression {compression}" + (f" ({name})" if name else "")
    elif alpha and extra not in (1, 2):
        what = "a fourth channel that is not declared as alpha"
    elif alpha and planar != 1 and bits[0] == 16:
        what = "alpha and 16 bits in separate planes"
    if what:
        raise unsupported(f"a TIFF with {what}", "PNG")
    width, height = (tags.get(tag, (0,))[0] for tag in (256, 257))
    # Of 8 bits the decoder multiplies colours by alpha itself; of 16 they are as in the file.
    return Header("TIFF", width, height, alpha, premultiplied=bits[0] == 8 or extra == 1)


_TIFF_STARTS = (b"II*\0", b"MM\0*")
_LISTED = (258, 338, 339)
"""Tags with a value for each channel: bits, extra channels, formats of numbers."""


def read_directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """Read the short and long tags in the first directory of a TIFF or an Exif block.

    Raises `struct.error` if it ends inside the directory.
    """
    order = "<" if data[:2] == b"II" else ">"
    magic, start = struct.unpack_from(order + "HI", data, 2)
    if magic != 42:
        raise unsupported("BigTIFF", "PNG")
    (entries,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        values = f"{order}{min(count, 64)}{'H' if kind == 3 else 'I'}"
        inline = struct.calcsize(values) <= 4
        if kind in (3, 4) and count and (inline or tag in _LISTED):
            place = at + 8 if inline else struct.unpack_from(order + "I", data, at + 8)[0]
            tags[tag] = struct.unpack_from(values, data, place)
    return tags


def _unknown() -> PictureError:
    return PictureError(f"not an image of a known format ({', '.join(get_args(Format))})")


def _pnm(data: bytes) -> Header:
    numbers: list[int] = []
    for line in data[2:4096].split(b"\n"):
        for token in line.split(b"#")[0].split():
            if not token.isdigit() or len(token) > 9:
                raise _unknown()
            numbers.append(int(token))
            if len(numbers) == 2 and data[1:2] == b"4":
                return Header("PNM", numbers[0], numbers[1])
            if len(numbers) == 3:
                width, height, white = numbers
                if white not in (255, 65535):
                    raise unsupported(f"a PNM whose white is {white}")
                return Header("PNM", width, height)
    raise PictureError("truncated: it ends inside its header")


def _avif(data: bytes) -> Header:
    brands = {data[at : at + 4] for at in range(8, min(len(data), 64), 4)}
    if b"crx " in brands:
        raise unsupported("a camera raw file", "JPEG")
    if data[8:12] in _HEIF and not brands & {b"avif", b"avis"}:
        raise unsupported("HEIC", "JPEG")
    if not brands & {b"avif", b"avis"}:
        raise PictureError("not an image: it is a video")
    places = [at for at in _positions(data, b"ispe") if at + 16 <= len(data)]
    if not places:
        raise PictureError("damaged: the AVIF does not say its size")
    # A grid has the size of its tiles and of the whole: the limit must hold for the largest.
    sizes = (struct.unpack_from(">II", data, at + 8) for at in places)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    # In the configuration of each coded item: one bit says more than 8, the next one 12.
    depths = [8 + 2 * (bits >> 6 & 1) + 2 * (bits >> 5 & 1) for bits in _bytes(data, b"av1C", 6)]
    turns = [0, *_bytes(data, b"irot", 4)][-1] & 3
    mirror = [0, *(1 + (axis & 1) for axis in _bytes(data, b"imir", 4))][-1]
    # Anticlockwise quarter turns, then a mirror (1: top to bottom, 2: left to right), as EXIF.
    orientation = {
        (0, 0): 1, (1, 0): 8, (2, 0): 3, (3, 0): 6,
        (0, 1): 4, (1, 1): 5, (2, 1): 2, (3, 1): 7,
        (0, 2): 2, (1, 2): 7, (2, 2): 4, (3, 2): 5,
    }[turns, mirror]  # fmt: skip
    alpha = b"auxC" in data[:4096]
    return Header("AVIF", width, height, alpha, orientation, depth=max(depths, default=8))


def _positions(data: bytes, name: bytes) -> Iterator[int]:
    """Find the positions of the properties called `name` in the head of an AVIF file."""
    at = data.find(name, 0, 65536)
    while at >= 0:
        yield at
        at = data.find(name, at + 4, 65536)


def _bytes(data: bytes, name: bytes, offset: int) -> list[int]:
    """Return the byte at `offset` after each property called `name`."""
    return [data[at + offset] for at in _positions(data, name) if at + offset < len(data)]


def _orientation(segments: list[bytes]) -> int:
    """Return the orientation in the first valid Exif block; 1 without one."""
    blocks: list[bytes] = []
    for segment in segments:
        if segment[:4] in _TIFF_STARTS:
            blocks.append(segment)
        elif blocks:  # a block of more than 64 KB is continued in the following segments of a JPEG
            blocks[-1] += segment
    for block in blocks:
        try:
            orientation = read_directory(block).get(0x112, (1,))[0]
        except struct.error:
            continue
        return orientation if 1 <= orientation <= 8 else 1
    return 1


_READERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    ((b"GIF87a", b"GIF89a"), _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    ((*_TIFF_STARTS, b"II+\0", b"MM\0+"), _tiff),
    ((b"P4", b"P5", b"P6"), _pnm),
)
