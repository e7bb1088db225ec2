"""`Camera`: options, times, states, and live sources that are not there."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from support import servers
from support.pictures import numbers, video

from catdog_edge import Camera, CameraError
from catdog_edge.camera.camera import State

SECRET = "s3cr3t-Wort"


def test_a_slow_consumer_misses_nothing_of_a_video(tmp_path: Path) -> None:
    with Camera(video(tmp_path / "a.avi", 8, 100)) as camera:
        seen = []
        for frame in camera:
            time.sleep(0.03)
            seen.append(frame)
    assert numbers(seen) == list(range(8))


@pytest.mark.clock
def test_realtime_waits_until_a_frame_is_due(tmp_path: Path) -> None:
    with Camera(video(tmp_path / "a.avi", 10, 20), realtime=True) as camera:
        first = camera.read()
        assert first is not None
        assert camera.read(timeout=0) is None, "the second frame is not due at once"
        assert 0 < camera.due() <= 1 / 20
        begun = time.monotonic()
        rest = list(camera)
        took = time.monotonic() - begun
    assert numbers(rest) == list(range(1, 10))
    assert took > 7 / 20, "nine frames at 20 per second cannot all have been due"


def test_a_region_is_cut_out(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 2)
    with Camera(path) as whole, Camera(path, roi=(100, 60, 50, 40)) as part:
        one, other = whole.read(), part.read()
    assert one is not None
    assert other is not None
    assert other.image.shape == (40, 50, 3)
    assert np.array_equal(other.image, one.image[60:100, 100:150])
    assert other.image.flags.c_contiguous


def test_a_region_outside_of_the_frames_is_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 2)
    told = pytest.raises(CameraError, match=r"a: the region 300,100,50,40 .* 320x180")
    with Camera(path, roi=(300, 100, 50, 40)) as camera, told:
        camera.read()
    with pytest.raises(CameraError, match="impossible"):
        Camera(path, roi=(-1, 0, 5, 5))
    with pytest.raises(CameraError, match="impossible"):
        Camera(path, roi=(0, 0, 0, 5))
    for wrong in ((1, 2, 3), "0,0,1,1", (0, 0, math.inf, 1), 5):
        with pytest.raises(CameraError, match="a region is four numbers"):
            Camera(path, roi=wrong)


def test_states_of_a_video_are_told(tmp_path: Path) -> None:
    told = []
    path = video(tmp_path / "a.avi", 2)
    with Camera(path, on_state=lambda camera, state, reason: told.append(state)) as camera:
        list(camera)
    assert told == [State.CONNECTING, State.LIVE, State.ENDED]


@pytest.mark.parametrize("closed_at", [State.CONNECTING, State.LIVE, State.RETRYING])
def test_a_callback_may_close_the_camera_and_is_told_of_the_end_once(
    tmp_path: Path, closed_at: State
) -> None:
    told = []

    def close(camera: Camera, state: State, reason: str) -> None:
        told.append(state)
        if state is closed_at:
            camera.close()

    nobody = f"rtsp://127.0.0.1:{servers.free_port()}/x"
    source = nobody if closed_at is State.RETRYING else video(tmp_path / "a.avi", 3)
    with Camera(source, on_state=close) as camera:
        list(camera)
    assert told[-2:] == [closed_at, State.ENDED]
    assert told.count(State.ENDED) == 1


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.avi")
    with pytest.raises(CameraError, match=r"f\.avi: is a pipe or a device.* name - as the source"):
        Camera(tmp_path / "f.avi")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="there is no such file"):
        Camera(tmp_path / "gone.mp4")
    with pytest.raises(CameraError, match="there are no pictures there"):
        Camera(tmp_path)
    with pytest.raises(CameraError, match="there are no pictures there"):
        Camera(str(tmp_path / "*.jpg"))
    if sys.platform == "linux":
        with pytest.raises(CameraError, match=r"there is no camera 977 \(/dev/video977\)"):
            Camera(977)
        with pytest.raises(CameraError, match="there is no such file"):
            Camera("/dev/video977")
    with pytest.raises(CameraError, match="the source is empty"):
        Camera("")


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 1)
    for options in ({"timeout": 0}, {"open_timeout": math.nan}, {"fps": -1}, {"retries": -1}):
        with pytest.raises(CameraError, match="must be"):
            Camera(path, **options)
    for start in (datetime.min, datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(CameraError, match="in the years 1000 to 8999"):
            Camera(path, start=start)
    with pytest.raises(CameraError, match="fps must be at least"):
        Camera(path, fps=1e-300)
    with pytest.raises(CameraError, match="cannot be called"):
        Camera(path, name="../../etc")


@pytest.mark.clock
def test_reading_gives_up_after_its_timeout_and_close_is_quick() -> None:
    told: list[State] = []
    url = f"rtsp://127.0.0.1:{servers.free_port()}/nothing"
    before = set(threading.enumerate())
    files = servers.open_files()
    with Camera(url, on_state=lambda camera, state, reason: told.append(state)) as camera:
        begun = time.monotonic()
        assert camera.read(timeout=0.5) is None
        assert 0.5 <= time.monotonic() - begun < 1
        reasons = set()
        while len(told) < 3:
            assert camera.read(timeout=0.05) is None
            reasons.add(camera.reason)
        assert "connection refused" in reasons
        assert camera.read(timeout=0) is None
        begun = time.monotonic()
    assert time.monotonic() - begun < 1, "closing must not wait for the network"
    assert told[:3] == [State.CONNECTING, State.RETRYING, State.CONNECTING]
    assert told[-1] is State.ENDED
    assert set(threading.enumerate()) <= before
    assert servers.open_files() <= files
    assert camera.read() is None


def test_retries_end_in_an_error() -> None:
    url = f"http://porter:{SECRET}@127.0.0.1:{servers.free_port()}/video"
    ages = 1e10  # more seconds than a system can wait for
    with Camera(url, retries=1, timeout=ages, open_timeout=ages) as camera:
        with pytest.raises(CameraError, match=r"given up, failed 2 times in a row: .*refused") as e:
            camera.read(timeout=ages)
        assert SECRET not in str(e.value)
        assert camera.ended
        assert camera.read() is None


def test_a_capture_process_that_ends_by_itself_is_told_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = tmp_path / "python"
    ending.write_text("#!/bin/sh\nexit 7\n")
    ending.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ending))
    with (
        Camera("rtsp://127.0.0.1:9/x", retries=0) as camera,
        pytest.raises(CameraError, match="exit code 7"),
    ):
        camera.read(timeout=20)


def test_what_a_callback_raises_reaches_the_reader() -> None:
    def broken(camera: Camera, state: State, reason: str) -> None:
        if state is State.RETRYING:
            raise ZeroDivisionError("mine")

    url = f"rtsp://127.0.0.1:{servers.free_port()}/nothing"
    with Camera(url, on_state=broken) as camera, pytest.raises(ZeroDivisionError, match="mine"):
        camera.read(timeout=20)
