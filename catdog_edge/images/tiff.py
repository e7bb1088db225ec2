"""What the first directory of a TIFF, or of an EXIF block, says.

Knows the tags of TIFF 6.0 by their numbers and which kinds of TIFF OpenCV reads in their true
colours; knows nothing of pixels or of other formats.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from catdog_edge.errors import PictureError


@dataclass(frozen=True)
class TiffLayout:
    """What a TIFF says of itself.

    Attributes:
        width: In pixels.
        height: In pixels.
        alpha: It has a fourth channel beside RGB.
        premultiplied: The decoder gives colours that are multiplied by alpha already.
        undeclared: Nothing says whether the fourth channel is alpha.
    """

    width: int
    height: int
    alpha: bool = False
    premultiplied: bool = False
    undeclared: bool = False


def layout(data: bytes) -> TiffLayout:
    """What the first directory of a TIFF says.

    Raises:
        PictureError: It is of a kind that OpenCV gives wrong colours of, or none at all.
        struct.error: The file ends inside its header.
    """
    tags = first_directory(data)
    samples, planar = tags.get(277, 1), tags.get(284, 1)
    photometric = tags.get(262, 2 if samples >= 3 else 1)
    depths = _values(data, 258) or (1,)
    extra = _values(data, 338)
    if any(sample_format != 1 for sample_format in _values(data, 339)):
        raise _unread("numbers that are signed or floating-point")
    if len(set(depths)) > 1 or depths[0] not in (1, 2, 4, 8, 16):
        raise _unread(f"{' and '.join(map(str, sorted(set(depths))))} bits a channel")
    colours = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}.get(photometric)
    if colours is None:
        raise _unread("colours that are neither grey, RGB, palette, CMYK nor YCbCr")
    names = {2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr"}
    name = names.get(photometric, "greyscale")
    if photometric in (3, 5, 6) and depths[0] == 16:
        raise _unread(f"{name} of 16 bits a channel")
    if samples != colours and (photometric, samples) != (2, 4):
        more = "and alpha" if samples == colours + 1 else f"in {samples} channels"
        raise _unread(f"{name} {more}")
    width, height = tags.get(256, 0), tags.get(257, 0)
    if (photometric, samples) != (2, 4):
        return TiffLayout(width, height)
    if planar != 1 and depths[0] == 16:
        raise _unread("alpha, 16 bits and each channel by itself (planar)")
    # Of 8 bits the decoder multiplies colours by alpha itself; of 16 they are as in the file.
    premultiplied = depths[0] == 8 or extra[:1] == (1,)
    return TiffLayout(width, height, True, premultiplied, extra[:1] not in ((1,), (2,)))


def first_directory(data: bytes) -> dict[int, int]:
    """First value of each short or long tag in the first directory of a TIFF or EXIF block."""
    order = "<" if data[:2] == b"II" else ">"
    magic, start = struct.unpack_from(order + "HI", data, 2)
    if magic != 42:
        raise PictureError("BigTIFF is not supported; save it as PNG")
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", data, at)
        if kind in (3, 4):
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0]
    return tags


def _values(data: bytes, wanted: int) -> tuple[int, ...]:
    """All values of a short or long tag in the first directory; none where it is not there."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        if tag == wanted and kind in (3, 4):
            count = min(count, 64)  # more channels than that are no photograph
            values = f"{order}{count}{'H' if kind == 3 else 'I'}"
            inline = struct.calcsize(values) <= 4
            place = at + 8 if inline else struct.unpack_from(order + "I", data, at + 8)[0]
            return struct.unpack_from(values, data, place)
    return ()


def _unread(what: str) -> PictureError:
    return PictureError(f"a TIFF with {what} is not read; save it as PNG with 8 bits a channel")
