"""Frames with a number, and when a server sends them; the server runs in the tests of cameras."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.studies import camera_server
from benchmarks.studies.camera_server import ServerProcess


@pytest.mark.parametrize("number", [0, 1, 2, 1365, 2730, 4095])
def test_a_number_is_read_again_after_lossy_coding(number: int) -> None:
    frame = np.random.default_rng(number).integers(0, 256, (90, 640, 3), dtype=np.uint8)
    below = frame[16:].copy()
    camera_server.stamp(frame, number)
    assert np.array_equal(frame[16:], below)
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    assert camera_server.read_stamp(cv2.imdecode(data, cv2.IMREAD_COLOR)) == number
    assert frame[0, 192:].any()


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (36, 64)])
def test_a_frame_is_filled_with_the_middle(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 - 9 : height // 2 + 9, width // 2 - 9 : width // 2 + 9] = 255
    made = camera_server.fill_frame(image, 64, 36, cv2.INTER_AREA)
    assert made.shape == (36, 64, 3)
    ys, xs = np.nonzero(made[..., 0] > 127)
    assert (ys.mean(), xs.mean()) == pytest.approx((17.5, 31.5), abs=1)


def test_without_photographs_there_are_drawings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_SHARED", str(tmp_path))
    blues = {}
    for kind in ("cat", "dog", "street"):
        first, second = camera_server.photographs(kind, 2)
        assert first.shape == (360, 640, 3)
        assert not np.array_equal(first, second)
        assert np.array_equal(first, camera_server.drawing(kind, 0))
        blues[kind] = first.mean(axis=(0, 1))
    assert blues["cat"][2] > blues["cat"][0] + 100
    assert blues["dog"][0] > blues["dog"][2] + 100
    assert np.ptp(blues["street"]) < 5
    assert 2 < first.std() < 40


def test_photographs_are_of_their_kind(shared_data: Path) -> None:
    cats, streets = (camera_server.photographs(kind, 2) for kind in ("cat", "street"))
    assert [image.shape for image in (*cats, *streets)] == [(360, 640, 3)] * 4
    assert not np.array_equal(cats[0], camera_server.photographs("dog", 1)[0])


def test_the_age_of_a_frame_is_of_the_last_time_that_it_was_sent() -> None:
    server = ServerProcess(["server"], 554, 10.0, 40)
    assert server.command == ["server", "--port", "554", "--fps", "10.0"]
    server.epoch = 100.0
    assert server.age(12, 101.7) == pytest.approx(0.5)
    assert server.age(12, 109.7) == pytest.approx(0.5)  # sent again after four seconds
    server.epoch = time.monotonic() - 2
    assert server.age(10) == pytest.approx(1, abs=0.5)


def test_a_stream_resumes_with_a_key_frame_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = b"\0\0\0\1\x09"
    units = [mark + (b"\0\0\1\x65" if n % 4 == 0 else b"\0\0\1\x41") + bytes([n]) for n in range(8)]
    (tmp_path / "video").write_bytes(b"".join(units))
    assert camera_server._access_units(str(tmp_path / "video")) == [
        (unit, n % 4 == 0) for n, unit in enumerate(units)
    ]
    now = [50.0]
    monkeypatch.setattr(camera_server.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        camera_server.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    frames = camera_server._due_frames(str(tmp_path / "video"), 10.0, 49.55)
    sent = [unit[-1] for unit in itertools.islice(frames, 6)]
    assert sent == [0, 1, 2, 3, 4, 5]  # the first key frame after the start, and each when due
    assert now[0] == pytest.approx(49.55 + 1.3)
    now[0] += 0.3  # three frames are gone: it catches up
    assert next(frames)[-1] != 4
    now[0] += 5
    assert next(frames)[-1] in (0, 4)


def test_garbage_is_the_same_each_time() -> None:
    assert camera_server.random_bytes(9) == camera_server.random_bytes(9)
    assert len(camera_server.random_bytes(500)) == 500
    assert 1024 < camera_server.free_port() < 65536
