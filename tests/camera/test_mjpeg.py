"""Streams of JPEGs: the splitter, and JPEGs on standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras.numbered_frames import encoded, numbered
from support.paths import ROOT

from catdog_edge import Camera, CameraError
from catdog_edge.camera.mjpeg import JpegSplitter


def test_the_splitter_finds_pictures_whatever_the_pieces() -> None:
    thumbnail = encoded(7)[:400] + b"\xff\xd9"
    inside = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    pictures = [encoded(0), encoded(1)[:2] + inside + encoded(1)[2:], encoded(2)]
    done, progressive = cv2.imencode(".jpg", numbered(3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    pictures.append(progressive.tobytes())
    stream = b"garbage \xff\x00" + pictures[0] + b"\r\n--boundary\r\n" + b"".join(pictures[1:])
    for size in (1, 7, 1000, len(stream)):
        splitter = JpegSplitter()
        found = []
        for at in range(0, len(stream), size):
            found += splitter.feed(stream[at : at + size])
        assert found == pictures, f"in pieces of {size}"


def test_the_splitter_gets_over_a_picture_that_is_cut_off() -> None:
    splitter = JpegSplitter()
    found = splitter.feed(
        encoded(0) + encoded(1)[:2000] + encoded(2) + os.urandom(3000) + encoded(3)
    )
    assert found[0] == encoded(0)
    assert encoded(3) in found
    assert splitter.feed(encoded(4)) == [encoded(4)]


_COUNT = """
import sys
sys.path.insert(0, {tests!r})
import time
from support.cameras import servers
from catdog_edge import Camera
with Camera("-", fps=10) as camera:
    for frame in camera:
        print(servers.read_stamp(frame.image), frame.dropped, flush=True)
        time.sleep({work})
print("counts", camera.counts.received, camera.counts.delivered, camera.counts.replaced,
      camera.counts.damaged, camera.state)
"""


def _script(work: float = 0.0) -> list[str]:
    return [sys.executable, "-c", _COUNT.format(tests=str(ROOT / "tests"), work=work)]


def test_jpegs_from_a_file_on_standard_input_all_come(tmp_path: Path) -> None:
    path = tmp_path / "stream.mjpeg"
    path.write_bytes(b"".join(encoded(n) if n != 3 else encoded(n)[:300] for n in range(6)))
    with path.open("rb") as stream:
        done = subprocess.run(_script(), stdin=stream, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = [int(line.split()[0]) for line in done.stdout.splitlines()[:-1]]
    assert seen in ([0, 1, 2, 4, 5], [0, 1, 2, 5])
    assert done.stdout.splitlines()[-1].endswith("ended")


def to_stdin(data: bytes, piped: bool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard input be a file or a pipe that holds these bytes."""
    if piped:
        assert len(data) <= 1 << 16, "more than a pipe holds"
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        stream = os.fdopen(reading, "rb")
    else:
        path.write_bytes(data)
        stream = path.open("rb")
    monkeypatch.setattr(sys, "stdin", stream)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_pictures_cut_off_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    half = len(encoded(1)) // 2
    data = encoded(0) + encoded(1)[:half] + encoded(2) + encoded(3)[:half]
    to_stdin(data, piped, tmp_path / "stream", monkeypatch)
    with sys.stdin, Camera("-") as camera:
        frames = list(camera)
        assert frames[-1].index == 2
        assert (camera.counts.received, camera.counts.damaged) == (4, 2)
        assert "image 3 on standard input: it is cut off (and 1 before it)" in camera.note


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("data", [b"", b"noise" * 10_000])
def test_standard_input_without_a_picture_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, piped: bool
) -> None:
    to_stdin(data, piped, tmp_path / "stream", monkeypatch)
    with (
        sys.stdin,
        Camera("-") as camera,
        pytest.raises(CameraError, match="standard input: there is no image in it"),
    ):
        list(camera)


def test_a_closed_standard_input_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CameraError, match="standard input is closed"):
        Camera("-")


def test_jpegs_from_a_pipe_are_live() -> None:
    process = subprocess.Popen(
        _script(work=0.2), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
    )
    for number in range(40):
        process.stdin.write(encoded(number))
        process.stdin.flush()
        time.sleep(0.02)
    process.stdin.close()
    lines = process.stdout.read().decode().splitlines()
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    seen = [int(line.split()[0]) for line in lines[:-1]]
    assert seen == sorted(seen)
    assert len(seen) < 30, "a consumer of five frames a second cannot see all of fifty a second"
    assert seen[-1] == 39, "the newest one is seen"
    received, delivered, replaced, damaged = map(int, lines[-1].split()[1:5])
    assert received == 40
    assert delivered == len(seen)
    assert received == delivered + replaced + damaged
    assert sum(int(line.split()[1]) for line in lines[:-1]) == replaced


def test_closing_a_pipe_that_sends_nothing_is_quick() -> None:
    script = _COUNT.replace("for frame in camera:", "for frame in [camera.read(timeout=0.2)] * 0:")
    script = script.format(tests=str(ROOT / "tests"), work=0)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.wait(timeout=10) == 0
    process.stdin.close()
    process.stdout.close()


def test_a_region_that_does_not_fit_a_pipe_ends_the_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_stdin(encoded(0) * 3, True, tmp_path / "stream", monkeypatch)
    with sys.stdin, Camera("-", roi=(0, 0, 5000, 5000)) as camera:
        with pytest.raises(CameraError, match="the region 0,0,5000,5000"):
            camera.read()
        assert camera.ended
        assert camera.read(timeout=1) is None
