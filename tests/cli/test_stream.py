"""`catdog-edge stream`: what is printed, written, kept and survived, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.paths import TINY

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support import clips, servers

from catdog_edge import CameraError
from catdog_edge.cli import stream
from catdog_edge.events.video import Recorder
from catdog_edge.runtime.classifier import SPIN, Classifier

MODEL = ["--model", str(TINY), "--reject", "0.9", "--provider", "cpu"]
START = ["--start", "2026-11-22T15:04:05Z"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "catdog_edge", "stream", *map(str, arguments)]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, **options
    )


def run_here(*arguments: object) -> None:
    """The command in this process, errors as it raises them."""
    stream.command.main(list(map(str, arguments)), standalone_mode=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cat, street, dog, street: four seconds each, at ten frames a second."""
    kinds = ("cat", "street", "dog", "street")
    pictures = [cv2.resize(clips.drawing(kind, n), (320, 180)) for n, kind in enumerate(kinds)]
    frames = clips.four_scenes(pictures, 10, pan=False, dark=False)
    return clips.write(frames, tmp_path_factory.mktemp("stream") / "porch.avi", 10)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Classifier]:
    """The classifiers that are made from here on, in this process."""
    made: list[Classifier] = []

    class Noted(Classifier):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr("catdog_edge.runtime.classifier.Classifier", Noted)
    return made


# What is printed.


def test_a_provider_that_does_not_start_is_one_plain_line(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from catdog_edge import ProviderError
    from catdog_edge.runtime import provider_selection, providers
    from catdog_edge.runtime.model_file import find_model
    from catdog_edge.runtime.onnxruntime_errors import INSTEAD
    from catdog_edge.system.log_to_stderr import log_to_stderr

    # CUDA is offered by its own build only; where there is none, starting it fails as well.
    monkeypatch.setattr(provider_selection, "offered", lambda: ["cuda"])
    monkeypatch.setattr(provider_selection, "_warned", set())
    try:
        provider_selection.open_model(find_model(TINY), "cuda", providers.Settings(1, spin=False))
    except ProviderError as error:
        reason = str(error).removesuffix(INSTEAD)
    else:
        pytest.skip("CUDA runs here")
    with log_to_stderr():
        run_here("--source", clip, *MODEL[:-2])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"catdog-edge: warning: {reason}; continuing without it"
    assert "tiny.onnx on cpu" in said[1]


def test_threads_spin_where_the_next_frame_comes_at_once(
    clip: Path, opened: list[Classifier], capsys: pytest.CaptureFixture[str]
) -> None:
    run_here("--source", clip, *MODEL)
    run_here("--source", clip, *MODEL, "--realtime", "--seconds", 0.2)
    with pytest.raises(CameraError):
        run_here("--source", "http://127.0.0.1:9/", *MODEL, "--retries", 0)
    assert [model._options[-1] for model in opened] == [SPIN, False, False]


def test_lines_for_people(clip: Path) -> None:
    done = run("--source", f"door={clip}", *MODEL, *START)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2026-11-22T15:04:05Z door cat enter 1.00",
        "2026-11-22T15:04:09Z door cat exit 1.00 after 4.0 s",
        "2026-11-22T15:04:13Z door dog enter 1.00",
        "2026-11-22T15:04:17Z door dog exit 1.00 after 4.0 s",
    ]
    said = done.stderr.splitlines()
    assert said[0].startswith(f"catdog-edge: door ({clip}); model {TINY} on cpu")
    assert "door: 160 frames, " in done.stderr
    assert " classified, 4 events" in done.stderr
    assert "processor time" in said[-1]


def test_json_is_the_same_each_time(clip: Path, tmp_path: Path) -> None:
    arguments = ["--source", f"door={clip}", *MODEL, *START, "--json"]
    one, other = run(*arguments), run(*arguments, "--events", tmp_path / "events.jsonl")
    assert one.stdout == other.stdout == (tmp_path / "events.jsonl").read_text()
    documents = [json.loads(line) for line in one.stdout.splitlines()]
    assert [(d["event"], d["label"], d["position"]) for d in documents] == clips.TRUTH
    assert [d["visit"] for d in documents] == [1, 1, 2, 2]
    assert {d["schema"] for d in documents} == {1}


def test_a_region_by_name(clip: Path) -> None:
    done = run(
        *("--source", f"door={clip}", "--source", f"yard={clip}", *MODEL, *START),
        *("--roi", "yard=10,10,100,100", "--json"),
    )
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted((d["source"], d["event"]) for d in documents) == sorted(
        (name, event) for name in ("door", "yard") for event in ("enter", "exit") * 2
    )
    done = run("--source", f"door={clip}", "--roi", "10,10,900,100", *MODEL)
    assert done.returncode == 1
    assert "door: the region 10,10,900,100 is not inside its frames of 320x180" in done.stderr


def test_a_model_without_a_rejection_is_warned_of(clip: Path) -> None:
    done = run("--source", clip, "--model", TINY, "--provider", "cpu", "--seconds", "0.1")
    assert "never answers 'neither'" in done.stderr


def test_a_source_from_the_environment(clip: Path) -> None:
    environment = {**os.environ, "DOOR": str(clip)}
    done = run("--source", "door=$DOOR", *MODEL, *START, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_no_child_has_the_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR", "http://porter:s3cr3t@127.0.0.1:9/")
    with pytest.raises(CameraError, match="given up"):
        run_here("--source", "door=$DOOR", *MODEL, "--retries", 0)
    assert "DOOR" not in os.environ


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for number, kind in enumerate(["street", "cat", "cat", "cat", "street", "street"]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), clips.drawing(kind, number))
    (tmp_path / "6.png").write_bytes(b"broken")
    done = run("--source", f"shots={tmp_path}", *MODEL, *START, "--json")
    assert done.returncode == 0
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(d["event"], d["label"], d["position"]) for d in documents] == [
        ("enter", "cat", 1.0),
        ("exit", "cat", 4.0),
    ]
    assert f"passed over {tmp_path / '6.png'}" in done.stderr
    assert "1 damaged" in done.stderr


def test_whoever_reads_the_events_may_stop(clip: Path) -> None:
    process = subprocess.Popen(
        command("--source", clip, *MODEL), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _out, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in said
    assert b"Exception" not in said


def test_a_name_that_a_terminal_obeys_is_told_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), clips.drawing("cat", 0))
    (tmp_path / "\x1b]0;mine\x07.png").write_bytes(b"broken")
    run_here("--source", tmp_path, *MODEL)
    said = capsys.readouterr().err
    assert r"\x1b]0;mine\x07.png" in said
    assert "\x1b" not in said


def test_messages_do_not_go_to_standard_output_where_there_is_no_other(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    run_here("--source", clip, *MODEL, "--json")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["schema"] for line in lines] == [1] * 4


def test_each_broken_recording_is_told_while_the_others_go_on(clip: Path, tmp_path: Path) -> None:
    broken = [tmp_path / "b1.avi", tmp_path / "b2.avi"]
    for path in broken:
        path.write_bytes(b"nothing")
    done = run(*(part for path in (*broken, clip) for part in ("--source", path)), *MODEL)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 4
    said = done.stderr.splitlines()
    for path in broken:
        assert f"catdog-edge: {path}: cannot be read as a video" in "\n".join(said[:-1])
    assert all(line.startswith("catdog-edge: ") for line in said), "nothing from a library"


# Cameras that give nothing.


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a recording"])
def test_a_camera_without_a_frame_in_the_time_given_is_an_error(clip: Path, beside: bool) -> None:
    nobody = f"rtsp://porter:s3cr3t@127.0.0.1:{servers.free_port()}/x"
    more = ["--source", clip] if beside else []
    done = run("--source", f"door={nobody}", *more, *MODEL, "--seconds", "4")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == (4 if beside else 0)
    *_lines, last = done.stderr.splitlines()
    assert "door (rtsp://***@127.0.0.1" in last
    assert "no frame within 4 s (connection refused)" in last
    assert "s3cr3t" not in done.stderr


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


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--source", "gone.mp4"], 1, "gone.mp4: there is no such file"),
        (["--source", "977"], 1, "there is no camera 977"),
        (["--source", "{clip}", "--source", "{clip}"], 1, "two sources are called porch"),
        (["--source", "door=$NO_SUCH_DOOR"], 1, "there is no variable NO_SUCH_DOOR"),
        (["--source", "{clip}", "--roi", "1,2,3"], 1, "--roi 1,2,3: give [NAME=]x,y,w,h"),
        (["--source", "{clip}", "--roi", "yard=1,2,3,4"], 1, "no source is called yard"),
        (["--source", "{clip}", "--start", "yesterday"], 1, "--start yesterday: write it like"),
        (["--source", "{clip}", "--leave", "0.9"], 1, "wanted 0 < leave <= enter <= 1"),
        (["--source", "{clip}", "--keep", "lots"], 2, "give a size, like: 500MB"),
        (["--source", "{clip}", "--enter", "2"], 2, "2.0 is not in the range"),
        (["--source", "{clip}", "--record", "a.gif"], 1, "a.gif: a recording ends in .mp4"),
        (["--source", "{clip}", "--record", "no/such/a.mkv"], 1, "there is no folder no/such"),
        (["--source", "{clip}", "--events", "/proc/no/e.jsonl"], 1, "cannot write /proc/no/e"),
        (["--source", "{clip}", "--snapshots", "/proc/no"], 1, "cannot write /proc/no"),
        (["--source", "{clip}", "--show"], 1, "--show: there is no screen here"),
        (["--source", "rtsp://u:s3cr3t@127.0.0.1:1/x", "--retries", "0"], 1, "given up"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    clip: Path, tmp_path: Path, arguments: list[str], code: int, what: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
    arguments = [argument.format(clip=clip) for argument in arguments]
    done = run(*arguments, *MODEL, cwd=tmp_path, env=environment)
    assert done.returncode == code
    assert what in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "s3cr3t" not in done.stderr
    if code == 1:
        assert what in done.stderr.splitlines()[-1]


# Files.


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


def test_the_command_survives_a_device_that_is_always_full(clip: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    done = run("--source", clip, *MODEL, "--events", "/dev/full")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr.count("No space left") == 1
    assert "4 events could not be written" in done.stderr


def test_snapshots_of_the_command(clip: Path, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    done = run("--source", f"door={clip}", *MODEL, *START, "--snapshots", shots, "--json")
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(p.name for p in shots.iterdir()) == sorted(
        Path(d["snapshot"]).name for d in documents
    )
    assert documents[0]["snapshot"] == str(shots / "20261122T150405000Z-door-cat-enter-1.jpg")
    for document in documents:
        blue, _green, red = cv2.imread(document["snapshot"]).mean((0, 1))
        assert (red > blue) == (document["label"] == "cat")


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


# Ctrl-C and SIGTERM.


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
