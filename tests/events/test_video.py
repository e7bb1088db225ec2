"""Annotated video: recordings and the window."""

from __future__ import annotations

import os
import shutil
import subprocess
import weakref
from pathlib import Path

import numpy as np
import pytest
from support.commands.stream_command import MODEL, command, run, run_here

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


from catdog_edge import CameraError
from catdog_edge.camera.camera import Frame
from catdog_edge.errors import CatdogError
from catdog_edge.events.video import MEASURED, Recorder


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_a_recording_plays(clip: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"annotated{suffix}"
    done = run("--source", clip, *MODEL, "--record", path)
    assert done.returncode == 0, done.stderr
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.1)
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert len(frames) == 160
    assert frames[0].shape == (180, 320, 3)
    border = [frame[-3:, 150:300].reshape(-1, 3).mean(0) for frame in frames]
    present = [green > blue + 30 and green > red + 30 for blue, green, red in border]
    assert present[20], "a green border while the cat is there"
    assert not present[60]
    assert present[100]


def test_two_sources_are_recorded_apart(clip: Path, tmp_path: Path) -> None:
    sources = ["--source", f"door={clip}", "--source", f"yard={clip}"]
    done = run(*sources, *MODEL, "--record", tmp_path / "a.mkv")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-door.mkv", "a-yard.mkv"]


def test_no_file_is_overwritten_by_an_output(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "day.avi"
    shutil.copy(clip, path)
    before = path.read_bytes()
    run_here("--source", path, *MODEL, "--record", path)
    assert path.read_bytes() == before
    told = f"{path} is there already; recording to {tmp_path / 'day-2.avi'}"
    assert caplog.messages == [told]
    assert (tmp_path / "day-2.avi").stat().st_size > 10_000
    with pytest.raises(CameraError, match="that is a source"):
        run_here("--source", path, *MODEL, "--events", path)
    assert path.read_bytes() == before
    Recorder(tmp_path / "empty.mkv").close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["day-2.avi", "day.avi"]


def test_a_folder_without_permission_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CatdogError, match=r"there is no folder .*none to write into; make it"):
        Recorder(tmp_path / "none" / "a.mkv")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(CatdogError, match=r"cannot write into .*: permission denied"):
        Recorder(tmp_path / "a.mkv")


def test_a_recorder_does_not_hold_what_it_has_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "long.mkv")
    images = []
    for number in range(100):
        image = np.full((48, 64, 3), number, np.uint8)
        recorder.write(Frame(image, "door", number, number / 10, number / 10), image)
        images.append(weakref.ref(image))
        del image
    assert sum(image() is not None for image in images) < MEASURED
    recorder.close()
    capture = cv2.VideoCapture(str(tmp_path / "long.mkv"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 100


def test_a_window_where_there_is_a_screen(clip: Path) -> None:
    if shutil.which("xvfb-run") is None or shutil.which("xauth") is None:
        pytest.skip("no virtual screen here (apt-get install xvfb xauth)")
    if "GUI:                           NONE" in cv2.getBuildInformation():
        pytest.skip("this OpenCV is built without windows")
    arguments = command("--source", clip, *MODEL, "--show")
    done = subprocess.run(
        ["xvfb-run", "-a", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
