"""Parts of the study of cameras that need no server, and what they hold figures against."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA

from benchmarks.studies import camera_soak
from benchmarks.studies.camera_soak import FPS, NAMES, CameraBench, _clocks, _parts, _Watch
from catdog_edge.camera.camera import Frame

pytestmark = pytest.mark.train


@pytest.fixture
def bench(tmp_path: Path) -> CameraBench:
    model = str(DATA / "tiny_known.onnx")
    options = argparse.Namespace(model=model, threads=1, reject=None, seconds=0.1)
    return CameraBench(options, tmp_path)


def frame(source: str, index: int, at: float) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, at, at, 0, source)


def test_a_figure_beyond_its_limit_is_missed(
    bench: CameraBench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert camera_soak.LIMITS == {  # those of docs/stream.md
        "file": 0.95, "kept": 0.95, "oldest_s": 1.0, "growth_mb": 10.0, "change": 0.0,
    }  # fmt: skip
    for value in (0.949, 0.95, 1.0):
        bench.check(f"share {value}", value, "kept", least=True)
        bench.check(f"change {value}", value - 0.95, "change")
    assert bench.missed == ["share 0.949", "change 1.0"]
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "  share 0.949: 0.949, wanted at least 0.95: MISSED"
    assert last == "  change 1.0: 0.050, wanted at most 0: MISSED"


def test_frames_count_from_when_all_cameras_are_connected() -> None:
    watch = _Watch(seconds=60)
    for name in NAMES[:-1]:
        watch.note(frame(name, 0, 1.0), None)
    assert not watch.seen
    watch.note(frame(NAMES[-1], 4, 2.0), None)
    for index in (7, 8, 10):  # one was lost on the way, and one after the decoder
        watch.note(frame("north", index, 2.0 + index * 2 / FPS), None)
    assert watch.seen == {NAMES[-1]: 1, "north": 3}
    assert watch.start
    assert watch.kept("north") == (3 / 4, 3 / 7)
    assert not watch.stop.is_set()


def test_a_watch_ends_after_its_seconds() -> None:
    watch = _Watch(seconds=0.05)
    for name in NAMES:
        watch.note(frame(name, 0, 1.0), None)
    assert watch.stop.wait(10)


def test_clocks_are_of_time_and_of_this_process() -> None:
    before = _clocks()
    sum(range(1_000_000))
    wall, here, workers = (after - start for after, start in zip(_clocks(), before, strict=True))
    assert 0 < here <= wall + 0.02
    assert workers == 0
    assert before[0] == pytest.approx(time.monotonic(), abs=30)


def test_durations_are_told_in_milliseconds() -> None:
    found = camera_soak.in_ms([n / 1000 for n in range(101)])
    assert found == {"p50": 50.0, "p95": 95.0, "max": 100.0}


def test_only_known_parts_are_taken() -> None:
    assert _parts("file,soak") == ["file", "soak"]
    with pytest.raises(argparse.ArgumentTypeError, match="there is no part noise; there are file,"):
        _parts("file,noise")


@pytest.mark.slow
def test_a_file_goes_through_the_loop_by_hand_and_through_ours(
    bench: CameraBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(camera_soak, "FILE_FRAMES", 4)
    found = bench.file()
    assert found["frames"] == 4
    assert found["rounds"] >= 7
    by_hand, ours = (found[name]["p50_ms"] for name in ("by hand", "catdog-edge"))
    assert found["speed_ratio"] == pytest.approx(by_hand / ours, rel=0.9)
    assert "file    with the motion gate" in capsys.readouterr().out
    assert {"by hand", "catdog-edge", "with the motion gate"} <= set(found)


class Server:
    """What a soak asks of a server, noted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> object:
        return lambda *what: self.asked.append(" ".join((name, *what)))

    def age(self, number: int) -> float:
        return 0.1 * number


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[camera_soak._Soak]:
    monkeypatch.setattr(camera_soak, "SETTLE", 0.0)
    monkeypatch.setattr(camera_soak.time, "sleep", lambda seconds: None)
    made = camera_soak._Soak(Server(), minutes=0.25 / 60, every=0.05)
    yield made
    made.stop.set()


def test_a_soak_causes_a_fault_every_so_often_and_ends_in_time(soak) -> None:
    start = time.monotonic()
    soak.cause_faults()
    assert soak.stop.is_set()
    assert 0.2 < time.monotonic() - start < 5
    assert soak._server.asked[:6] == ["kill", "start", "freeze", "thaw", "freeze", "thaw"]
    assert 1 <= soak.faults == len(soak.samples) - 1
    assert {"at_s", "here_mb", "threads", "files", "processes"} <= set(soak.samples[0])
    assert soak.samples[0]["processes"] == 0
    assert 10 < soak.samples[0]["here_mb"] < 10_000


def test_a_soak_notes_the_oldest_frame_and_when_frames_are_back(soak) -> None:
    image = np.zeros((32, 320, 3), np.uint8)
    for number in (3, 7, 5):
        camera_soak.stamp(image, number)
        soak.note(Frame(image, number, 0, 0, 0, ""), None)
    assert soak.oldest == pytest.approx(0.7)
    assert soak.back_after == []
    soak._mended = time.monotonic() - 2
    soak.note(Frame(image, 8, 0, 0, 0, ""), None)
    soak.note(Frame(image, 9, 0, 0, 0, ""), None)
    assert soak.back_after == pytest.approx([2], abs=0.5)
