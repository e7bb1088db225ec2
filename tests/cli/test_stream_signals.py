"""`catdog-edge stream` ends in order at Ctrl-C and SIGTERM, whatever it is doing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands.stream_command import MODEL, command

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support.cameras import clips, servers


def ends_in_time(process: subprocess.Popen, number: signal.Signals) -> tuple[str, str]:
    """Send a signal to the whole foreground group, as a terminal does; it ends.

    Before the timeouts of a camera (5 and 10 s) could have ended it.
    """
    begun = time.monotonic()
    os.killpg(process.pid, number)
    out, said = process.communicate(timeout=20)
    took = time.monotonic() - begun
    assert process.returncode == 0, said
    assert took < 4.0, f"it took {took:.1f} s to end"
    assert "Traceback" not in said
    return out, said


def begin(*arguments: object, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        command(*arguments, *MODEL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(process: subprocess.Popen, text: str) -> None:
    while text not in (line := process.stderr.readline()):
        assert line, f"it ended without saying {text!r}"


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_recording_plays(clip: Path, number: signal.Signals) -> None:
    process = begin("--source", f"door={clip}", "--realtime", "--json")
    first = process.stdout.readline()
    assert json.loads(first)["event"] == "enter"
    out, said = ends_in_time(process, number)
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["stopped"]
    assert "processor time" in said


@pytest.mark.clock
def test_a_signal_while_it_starts(clip: Path) -> None:
    for delay in (0.15, 0.3, 0.5):
        process = begin("--source", clip, "--realtime")
        time.sleep(delay)
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)
        _out, said = process.communicate(timeout=20)
        assert time.monotonic() - begun < 1.0
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in said


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_it_retries(number: signal.Signals) -> None:
    process = begin("--source", f"rtsp://u:s3cr3t@127.0.0.1:{servers.free_port()}/x")
    wait_for(process, "retrying")
    _out, said = ends_in_time(process, number)
    assert "s3cr3t" not in said


def test_a_signal_while_nobody_reads_the_events(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 512):
            pass
    os.set_blocking(writing, True)
    arguments = command("--source", clip, *MODEL, "--events", path)
    process = subprocess.Popen(arguments, stdout=writing, stderr=subprocess.PIPE)
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    os.close(reading)
    os.close(writing)


def test_a_signal_while_standard_input_is_silent() -> None:
    process = begin("--source", "-", stdin=subprocess.PIPE)
    wait_for(process, "connecting")
    time.sleep(0.3)
    ends_in_time(process, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.skipif(bool(servers.rtsp_missing()), reason=servers.rtsp_missing() or "-")
def test_signals_while_live_stalled_and_connecting(tmp_path: Path) -> None:
    video = servers.encode_h264(clips.stamped(150), tmp_path / "served.h264", 15)
    with servers.RtspServer(video, 15, 150) as server:
        process = begin("--source", f"door={server.url}", "--json")
        wait_for(process, "door: live")
        time.sleep(0.3)
        ends_in_time(process, signal.SIGTERM)

        process = begin("--source", f"door={server.url}", "--json")
        wait_for(process, "door: live")
        server.freeze()
        wait_for(process, "door: stalled")
        out, _said = ends_in_time(process, signal.SIGINT)
        states = [json.loads(line) for line in out.splitlines()]
        told = [d["state"] for d in states if d["event"] == "state"]
        assert told == ["connecting", "live", "stalled", "ended"]

        process = begin("--source", f"door={server.url}", "--json")
        wait_for(process, "door: connecting")
        time.sleep(1.0)
        ends_in_time(process, signal.SIGINT)
        server.thaw()
    assert servers.children() == []
