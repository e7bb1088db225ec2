"""A live source, from the thread that reads it to the caller."""

from __future__ import annotations

import threading
import time

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras import servers

from catdog_edge import Camera, CameraError
from catdog_edge.camera.camera import State

SECRET = "s3cr3t-Wort"


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


def test_what_a_callback_raises_reaches_the_reader() -> None:
    def broken(camera: Camera, state: State, reason: str) -> None:
        if state is State.RETRYING:
            raise ZeroDivisionError("mine")

    url = f"rtsp://127.0.0.1:{servers.free_port()}/nothing"
    with Camera(url, on_state=broken) as camera, pytest.raises(ZeroDivisionError, match="mine"):
        camera.read(timeout=20)
