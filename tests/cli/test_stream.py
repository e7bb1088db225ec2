"""`catdog-edge stream`: what is printed, written, kept and survived, and how it ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands.stream_command import MODEL, START, run, run_here
from support.paths import DATA, TINY

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from support.cameras import clips, servers

from catdog_edge import CameraError
from catdog_edge.runtime.classifier import SPIN, Classifier


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
    from catdog_edge.runtime.model_file import find_model
    from catdog_edge.runtime.onnxruntime_errors import INSTEAD
    from catdog_edge.runtime.providers import selection, start
    from catdog_edge.system.log_to_stderr import log_to_stderr

    # CUDA is offered by its own build only; where there is none, starting it fails as well.
    monkeypatch.setattr(selection, "accelerators", lambda: ["cuda"])
    monkeypatch.setattr(selection, "_warned", set())
    try:
        selection.open_model(find_model(TINY), "cuda", start.Settings(1, spin=False))
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


def test_focus_and_rejection_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cat too small for the whole frame: the square finds it, or a lower threshold."""
    lefts = [*[None] * 10, *range(0, 160, 16), *[160] * 10]
    path = clips.write((clips.yard(left) for left in lefts), tmp_path / "yard.avi", 10)

    def watch(*options: object) -> tuple[list[Any], str]:
        model = ("--model", DATA / "tiny_known.onnx", "--provider", "cpu")
        run_here("--source", path, *model, "--json", *options)
        done = capsys.readouterr()
        return [json.loads(line) for line in done.out.splitlines()], done.err

    found, _said = watch()
    assert [(event["event"], event["label"]) for event in found] == [
        ("enter", "cat"),
        ("exit", "cat"),
    ]
    assert all(event["box"] for event in found)
    assert watch("--focus", "frame")[0] == []
    lower, _said = watch("--focus", "frame", "--reject", 0.1)
    assert [(event["event"], event["label"], event["box"]) for event in lower] == [
        ("enter", "cat", None),
        ("exit", "cat", None),
    ]
    found, said = watch("--focus", "none")
    assert found == []
    assert f"{len(lefts)} frames, {len(lefts)} classified" in said


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
    assert f"skipped {tmp_path / '6.png'}" in done.stderr
    assert "1 damaged" in done.stderr


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
        (["--source", "{clip}", "--leave", "0.9"], 1, "expected 0 < leave <= enter <= 1"),
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


# Ctrl-C and SIGTERM.
