"""BMP of every header, depth and order of channels: decoded in the right colours, or refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from support.images.encoded import encode, reason, scene

from catdog_edge.images.read import decode_picture

HEIGHT, WIDTH = 11, 13
COLOURS = np.array(scene(HEIGHT, WIDTH))
ALPHA = np.full((HEIGHT, WIDTH), 255, np.uint8)
ALPHA[:3], ALPHA[3:6] = 0, 128

MASKS = {
    "565": (0xF800, 0x7E0, 0x1F, 0),
    "555": (0x7C00, 0x3E0, 0x1F, 0),
    "4444": (0xF00, 0xF0, 0xF, 0xF000),
    "bgrx": (0xFF0000, 0xFF00, 0xFF, 0),
    "bgra": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    "rgbx": (0xFF000000, 0xFF0000, 0xFF00, 0),
    "rgba": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    "abgr": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    "1010102": (0x3FF00000, 0xFFC00, 0x3FF, 0),
}


def bmp(
    body: bytes,
    bits: int,
    size: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (0, 0, 0, 0),
    top_down: bool = False,
    palette: bytes = b"",
) -> bytes:
    """A BMP with a header of `size` bytes."""
    if size == 12:
        head = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        height = -HEIGHT if top_down else HEIGHT
        head = struct.pack("<IiiHHI", size, WIDTH, height, 1, bits, compression)
        head += struct.pack("<IiiII", len(body), 2835, 2835, len(palette) // 4, 0)
        after = {(40, 3): 3, (40, 6): 4}.get(
            (size, compression), {52: 3, 40: 0, 64: 0}.get(size, 4)
        )
        head += struct.pack(f"<{after}I", *masks[:after])
        head = head.ljust(size, b"\0")
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + palette + body


def rows(pixels: np.ndarray, top_down: bool = False) -> bytes:
    lines = [row.tobytes() for row in (pixels if top_down else pixels[::-1])]
    return b"".join(line + bytes(-len(line) % 4) for line in lines)


def packed(masks: tuple[int, ...], alpha: np.ndarray = ALPHA) -> np.ndarray:
    """`COLOURS` as numbers in which each channel stands under its mask."""
    numbers = np.zeros((HEIGHT, WIDTH), np.uint32)
    for channel, mask in zip([*np.moveaxis(COLOURS, 2, 0), alpha], masks, strict=True):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            levels = np.round(channel / 255 * (mask >> shift)).astype(np.uint32)
            numbers |= levels << np.uint32(shift)
    return numbers.astype(np.uint16) if max(masks) < 2**16 else numbers


def on_white(alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return COLOURS * share + 255 * (1 - share)


def assert_colours(data: bytes, expected: np.ndarray, tolerance: int = 1) -> None:
    assert np.abs(decode_picture(data)[..., ::-1].astype(float) - expected).max() <= tolerance


@pytest.mark.parametrize("size", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("compression", [3, 6])
@pytest.mark.parametrize("name", MASKS)
def test_channels_by_masks(name: str, compression: int, size: int) -> None:
    masks = MASKS[name]
    data = bmp(rows(packed(masks)), 16 if max(masks) < 2**16 else 32, size, compression, masks)
    has_alpha = masks[3] and (size >= 56 or (size == 40 and compression == 6))
    tolerance = {"565": 5, "555": 5, "4444": 9}.get(name, 1)
    assert_colours(data, on_white(ALPHA) if has_alpha else COLOURS, tolerance)


def test_rows_from_top_to_bottom() -> None:
    body = rows(packed(MASKS["bgra"]), top_down=True)
    data = bmp(body, 32, 108, 3, MASKS["bgra"], top_down=True)
    assert_colours(data, on_white(ALPHA))
    assert_colours(bmp(rows(COLOURS[..., ::-1], True), 24, top_down=True), COLOURS)


def test_an_alpha_channel_that_is_all_zero_is_not_used() -> None:
    unused = packed(MASKS["bgra"], np.zeros_like(ALPHA))
    assert_colours(bmp(rows(unused), 32, 124, 3, MASKS["bgra"]), COLOURS)


def test_the_fourth_byte_without_masks_is_padding() -> None:
    assert_colours(bmp(rows(np.dstack([COLOURS[..., ::-1], ALPHA])), 32), COLOURS)


def test_white_of_five_bits_is_white() -> None:
    data = bmp(rows(np.full((HEIGHT, WIDTH), 0x7FFF, np.uint16)), 16)
    assert (decode_picture(data) == 255).all()
    assert_colours(bmp(rows(packed(MASKS["555"])), 16), COLOURS, 4)


@pytest.mark.parametrize("size", [12, 40, 64, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int, size: int) -> None:
    numbers = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2**bits
    colours = np.array([(i, 255 - i, i * 7 % 256) for i in range(2**bits)])
    entries = b"".join(bytes((b, g, r)) + bytes(size != 12) for r, g, b in colours.tolist())
    lines = ["".join(f"{number:0{bits}b}" for number in row) for row in numbers.tolist()]
    whole = np.array([list(line.ljust(-(-len(line) // 8) * 8, "0")) for line in lines]).astype(
        np.uint8
    )
    data = bmp(rows(np.packbits(whole, axis=1)), bits, size, palette=entries)
    assert_colours(data, colours[numbers], 0)


@pytest.mark.parametrize("bits", [16, 32])
def test_truncated_anywhere_is_refused(bits: int) -> None:
    masks = MASKS["565"] if bits == 16 else MASKS["rgba"]
    data = bmp(rows(packed(masks)), bits, 108, 3, masks)
    for size in range(len(data)):
        reason(data[:size])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bmp(bytes(500), 2), "2 bits a pixel"),
        (bmp(bytes(5000), 64), "64 bits a pixel"),
        (bmp(encode(scene(), "JPEG"), 0, 40, 4), "an embedded JPEG"),
        (bmp(encode(scene(), "PNG"), 0, 40, 5), "an embedded PNG"),
        (bmp(bytes(500), 1, 64, 3), "compression 3"),
        (bmp(bytes(500), 24, 64, 4), "an embedded JPEG"),
        (bmp(bytes(1000), 32, 108, 3, (0xFF0000, 0xFF01, 0xFF, 0)), "channel mask 0xff01"),
        (bmp(bytes(1000), 16, 108, 3, (0x1F0000, 0x7E0, 0x1F, 0)), "channel mask 0x1f0000"),
    ],
)
def test_other_kinds_are_refused_by_name(data: bytes, what: str) -> None:
    assert what in reason(data)
    assert "is not supported; save it as PNG" in reason(data)
