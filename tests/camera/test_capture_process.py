"""The process that captures from a live camera."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("cv2")

from support.cameras import servers
from support.fresh_python import in_fresh_python

from catdog_edge import Camera, CameraError
from catdog_edge.camera.supervisor import CaptureProcess


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


SECRET = "s3cr3t-Wort"


def test_the_capture_process_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("the environment of a process cannot be read here")
    url = f"rtsp://porter:{SECRET}@127.0.0.1:{servers.free_port()}/x"
    monkeypatch.setenv("DOOR", f"door={url}")
    monkeypatch.setenv("DOOR_PASSWORD", SECRET)
    with Camera(url):
        end = time.monotonic() + 10
        while not (found := servers.children()) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # it is a copy of this process until it has become another program
        assert found
        for process in found:
            environment = Path(f"/proc/{process}/environ").read_text()
            assert "OPENCV_LOG_LEVEL" in environment
            assert SECRET not in environment


def test_a_capture_process_that_says_nothing_is_not_gone() -> None:
    process = CaptureProcess()
    assert process.messages(0.001) == []
    process.kill()
    assert process.messages(5) is None
    assert process.stop() != 0


def test_a_capture_process_does_not_load_what_supervises_it() -> None:
    program = "import sys, catdog_edge.camera.capture_process; print(*sys.modules)"
    assert "catdog_edge.camera.supervisor" not in in_fresh_python(program).stdout.split()
