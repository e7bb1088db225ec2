"""Lines of events: whole, and to whoever reads them."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands.stream_command import MODEL, command, run_here

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support.cameras import servers

from catdog_edge import CameraError


def test_whoever_reads_the_events_may_stop(clip: Path) -> None:
    process = subprocess.Popen(
        command("--source", clip, *MODEL), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _out, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in said
    assert b"Exception" not in said


def test_lines_of_two_cameras_do_not_run_into_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            time.sleep(0.001)  # another thread may write now
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stream())
    nobody = [f"rtsp://127.0.0.1:{servers.free_port()}/{n}" for n in range(2)]
    sources = ["--source", f"door={nobody[0]}", "--source", f"yard={nobody[1]}"]
    with pytest.raises(CameraError):
        run_here(*sources, *MODEL, "--retries", 1)
    lines = [write for write in writes if ": retrying" in write or ": connecting" in write]
    assert len(lines) == 6
    assert all(line.count("catdog-edge: ") == 1 and line.endswith("\n") for line in lines)


def test_a_full_disk_behind_standard_output_takes_nothing_from_the_file(
    clip: Path, tmp_path: Path
) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    path = tmp_path / "events.jsonl"
    arguments = command("--source", clip, *MODEL, "--events", path, "--seconds", "1e10")
    with open("/dev/full", "w") as full:  # noqa: PTH123 - it is no file
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert len(path.read_text().splitlines()) == 4
    assert "Traceback" not in done.stderr
    assert done.stderr.count("cannot write standard output: No space left") == 1
    assert "4 lines could not be written" in done.stderr
    assert "cannot write the output: No space left" in done.stderr.splitlines()[-1]
