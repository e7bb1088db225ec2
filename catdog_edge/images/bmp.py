"""Read BMP headers, and decode BMP variants whose channels OpenCV swaps or drops.

Layouts as in Microsoft's BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import PictureError

_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHABITFIELDS = 0, 1, 2, 3, 6
_COMPRESSIONS = {4: "an embedded JPEG", 5: "an embedded PNG"}
_RGB555 = (0x7C00, 0x03E0, 0x001F, 0)


@dataclass(frozen=True)
class BmpHeader:
    """The header of a BMP; `start` is the offset of its pixels, `bits` is per pixel.

    `masks` are of red, green, blue and alpha (0: none) where pixels are numbers of 16 or 32 bits
    that hold the channels; otherwise `None`, and OpenCV decodes the file.
    """

    width: int
    height: int
    start: int
    bits: int
    masks: tuple[int, ...] | None
    top_down: bool


def read_bmp_header(data: bytes) -> BmpHeader:
    """Read the header of a BMP; `struct.error`: the file ends inside it."""
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = _RGB
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        compression = struct.unpack_from("<I", data, 30)[0] if size >= 40 else _RGB
    masks: tuple[int, ...] | None = None
    if compression in (_BITFIELDS, _ALPHABITFIELDS) and bits in (16, 32) and size != 64:
        # The old header has no room for the masks: they follow it, without alpha for 3.
        alpha = size >= 56 or (size == 40 and compression == _ALPHABITFIELDS)
        masks = struct.unpack_from("<IIII" if alpha else "<III", data, 54)
        masks = (*masks, 0)[:4]
    elif compression == _RGB and bits == 16:
        masks = _RGB555
    elif bits not in (1, 4, 8, 24, 32) or compression not in (_RGB, _RLE8, _RLE4):
        what = _COMPRESSIONS.get(compression, f"{bits} bits a pixel and compression {compression}")
        raise PictureError(f"a BMP with {what} is not supported; save it as PNG")
    return BmpHeader(width, abs(height), start, bits, masks, height < 0)


def decode_masked(data: bytes, header: BmpHeader) -> npt.NDArray[np.uint8]:
    """Decode a BMP that has `masks`: `uint8 [H,W,3]` BGR, or `[H,W,4]` BGRA where alpha is used.

    Some programs declare alpha and leave it at zero, which means opaque here as in browsers.
    """
    assert header.masks is not None
    stride = (header.width * header.bits + 31) // 32 * 4
    if len(data) < header.start + stride * header.height:
        raise PictureError("truncated: the BMP ends before its last row")
    rows = np.frombuffer(data, np.uint8, stride * header.height, header.start)
    used = rows.reshape(header.height, stride)[:, : header.width * header.bits // 8]
    values = np.ascontiguousarray(used).view(f"<u{header.bits // 8}")
    red, green, blue, alpha = (_channel(values, mask) for mask in header.masks)
    channels = [blue, green, red, alpha] if header.masks[3] and alpha.any() else [blue, green, red]
    return np.dstack(channels)[:: 1 if header.top_down else -1]


def _channel(values: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    """Return the values under a mask, scaled to 0..255."""
    if mask == 0:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    if most & (most + 1) or most > 0xFFFF or mask >= 2 ** (8 * values.itemsize):
        what = f"a BMP with the channel mask {mask:#x}"
        raise PictureError(f"{what} is not supported; save it as PNG")
    levels = ((values & values.dtype.type(mask)) >> values.dtype.type(shift)).astype(np.uint32)
    scaled: npt.NDArray[np.uint8] = ((levels * 255 + most // 2) // most).astype(np.uint8)
    return scaled
