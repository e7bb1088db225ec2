"""`Camera`: options, times, states, and live sources that are not there."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras import servers
from support.cameras.numbered_frames import numbers, video

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
