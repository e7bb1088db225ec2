"""The decoder's verdict on damage: refused by default, kept on request, never on stderr."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from support.images.encoded import Image, encode

from catdog_edge.errors import PictureError
from catdog_edge.images.decoder_warnings import decode_with_verdict, write_stderr
from catdog_edge.images.read import decode_picture

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="no verdict on this system")


def photo(seed: int = 0) -> Image.Image:
    """Something that does not compress to nothing."""
    small = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC))


def middle_third_overwritten(data: bytes, fill: str) -> bytes:
    size = len(data) // 3
    filled = {
        "noise": np.random.default_rng(1).bytes(size),
        "zeros": bytes(size),
        "text": (b"The quick brown fox. " * size)[:size],
        "itself": data[size : 2 * size][::-1],
    }[fill]
    return data[:size] + filled + data[2 * size :]


JPEGS: dict[str, dict[str, object]] = {
    "baseline": {"quality": 85},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 85, "restart_marker_rows": 1},
    "444": {"quality": 90, "subsampling": 0},
}
TIFFS: dict[str, dict[str, object]] = {
    "lzw": {"compression": "tiff_lzw"},
    "deflate": {"compression": "tiff_adobe_deflate"},
    "packbits": {"compression": "packbits"},
    "jpeg": {"compression": "jpeg"},
}


@pytest.mark.parametrize("fill", ["noise", "zeros", "text", "itself"])
@pytest.mark.parametrize("form", [*JPEGS, "grey", "cmyk", *TIFFS])
def test_an_overwritten_third_is_damage(
    form: str, fill: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if form in TIFFS:
        if int(cv2.__version__.split(".")[0]) < 5 and form != "jpeg":
            pytest.skip("OpenCV 4 does not print what libtiff reports")
        data = encode(photo(), "TIFF", **TIFFS[form])
    else:
        mode = {"grey": "L", "cmyk": "CMYK"}.get(form, "RGB")
        data = encode(photo().convert(mode), "JPEG", **JPEGS.get(form, {"quality": 85}))
    whole = decode_picture(data)
    damaged = middle_third_overwritten(data, fill)
    with pytest.raises(PictureError, match="damaged"):
        decode_picture(damaged)
    if form != "jpeg" and (form, fill) != ("progressive", "itself"):  # these have no pixels at all
        assert decode_picture(damaged, keep_damaged=True).shape == whole.shape
    assert capfd.readouterr().err == ""


def test_what_a_decoder_only_remarks_upon_is_no_damage(capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(photo(), "JPEG")
    revision = data.index(b"JFIF\0") + 5
    odd = data[:revision] + b"\x03\x07" + data[revision + 2 :]
    assert np.array_equal(decode_picture(odd), decode_picture(data))
    assert capfd.readouterr().err == ""


def test_a_few_bytes_of_padding_before_a_marker_are_no_damage() -> None:
    data = encode(photo(), "JPEG")
    assert np.array_equal(decode_picture(data[:-2] + bytes(4) + data[-2:]), decode_picture(data))
    with pytest.raises(PictureError, match="corrupt JPEG data"):
        decode_picture(data[:-2] + bytes(40) + data[-2:])


def test_what_others_print_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = np.frombuffer(middle_third_overwritten(encode(photo(), "JPEG"), "zeros"), np.uint8)

    def decode() -> int:
        os.write(2, b"what others print\n")
        cv2.imdecode(damaged, cv2.IMREAD_COLOR)
        return 7

    assert decode_with_verdict(decode) == (7, True)
    assert capfd.readouterr().err == "what others print\n" * 2
    assert decode_with_verdict(lambda: os.write(2, b"after\n")) == (6, False)
    assert capfd.readouterr().err == "after\n"


def test_in_many_threads_only_the_damaged_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    files = [encode(photo(seed), "JPEG", quality=90) for seed in range(40)]
    files[::4] = [middle_third_overwritten(data, "zeros") for data in files[::4]]

    def refused(data: bytes) -> bool:
        try:
            decode_picture(data)
        except PictureError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, files)) == [number % 4 == 0 for number in range(40)]
    assert capfd.readouterr().err == ""


def test_an_error_of_the_decoder_gives_stderr_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        decode_with_verdict(fail)
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"


@pytest.mark.clock
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_during_a_decode_has_its_own_stderr_and_decodes() -> None:
    program = """
import os, sys, threading
import numpy as np, cv2
from catdog_edge.images.decoder_warnings import decode_with_verdict
entered, leave, real = threading.Event(), threading.Event(), os.fstat(2).st_ino
def slow():
    entered.set(); leave.wait()
thread = threading.Thread(target=decode_with_verdict, args=(slow,)); thread.start()
entered.wait()
child = os.fork()
if child == 0:
    os.write(2, b"child\\n")
    print(os.fstat(2).st_ino == real, decode_with_verdict(lambda: 3), flush=True)
    os._exit(0)
os.waitpid(child, 0)
leave.set(); thread.join()
os.write(2, b"parent\\n")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True (3, False)\n"
    assert done.stderr == "child\nparent\n"


def test_without_a_stderr_it_decodes_all_the_same() -> None:
    program = """
import os, sys
os.close(2)
from catdog_edge.images.decoder_warnings import decode_with_verdict
print(decode_with_verdict(lambda: 3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.stdout == b"(3, False)\n"


def test_progress_is_seen_while_decoders_run(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> str:
        os.write(2, b"Corrupt JPEG data: bad\n")
        write_stderr("600 of 1,200")
        return capfd.readouterr().err

    with contextlib.suppress(OSError):
        seen, _ = decode_with_verdict(decode)
    assert seen == "600 of 1,200"
