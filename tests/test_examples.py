"""The examples run as a person would run them, and stay short."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT, TINY

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

EXAMPLES = ROOT / "examples"
RED, BLUE = (0, 0, 200), (200, 0, 0)


def run(name: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=check,
    )


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("loop.py", ["nowhere.avi", TINY], "nowhere.avi does not open"),
        ("two_cameras.py", [], "usage: python two_cameras.py SOURCE SOURCE"),
        ("two_cameras.py", ["one.avi"], "usage: python two_cameras.py SOURCE SOURCE"),
        ("folder_to_csv.py", [], "usage: python folder_to_csv.py FOLDER FILE.csv"),
        ("folder_to_csv.py", ["folder"], "usage: python folder_to_csv.py FOLDER FILE.csv"),
        ("folder_to_csv.py", ["nowhere", "out.csv", TINY], "no images in nowhere"),
        ("http_endpoint.py", ["port", TINY], "on port port: invalid"),
        ("http_endpoint.py", ["99999", TINY], "on port 99999: "),
        ("loop.py", ["9" * 11, TINY], "99999999999 does not open"),
        ("loop.py", ["0", "nowhere.onnx"], "loop.py: there is no model nowhere.onnx"),
        ("two_cameras.py", ["a", "b", "nowhere.onnx"], "py: there is no model nowhere.onnx"),
        ("http_endpoint.py", ["0", "nowhere.onnx"], "on port 0: there is no model nowhere.onnx"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_exit_code_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[object],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(name, *arguments, check=False)
    assert done.returncode not in (0, -9), done.stdout
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_of_two_cameras_the_one_that_opens_is_watched(tmp_path: Path) -> None:
    cats = video(tmp_path / "cats.avi", [RED] * 3)
    done = run("two_cameras.py", cats, tmp_path / "nowhere.avi", TINY, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    assert "nowhere.avi does not open" in done.stderr
    assert "Traceback" not in done.stderr


def video(file: Path, colours: list[tuple[int, int, int]]) -> Path:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    assert writer.isOpened()
    for colour in colours:
        writer.write(np.full((48, 64, 3), colour, np.uint8))
    writer.release()
    return file


def jpeg(colour: tuple[int, int, int]) -> bytes:
    coded, data = cv2.imencode(".jpg", np.full((48, 64, 3), colour, np.uint8))
    assert coded
    return data.tobytes()


def test_every_example_is_tested_and_under_40_lines() -> None:
    names = {file.name for file in EXAMPLES.glob("*.py")}
    on_devices = {"picamera2_events.py", "jetson_events.py"}  # tests/test_device_examples.py
    assert names - on_devices == {
        "loop.py", "two_cameras.py", "folder_to_csv.py", "http_endpoint.py"
    }  # fmt: skip
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) < 40, name


def test_the_loop(tmp_path: Path) -> None:
    done = run("loop.py", video(tmp_path / "pets.avi", [RED, RED, BLUE]), TINY)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["cat", "cat", "dog"]


def test_two_cameras_share_one_classifier(tmp_path: Path) -> None:
    cats = video(tmp_path / "cats.avi", [RED] * 20)
    dogs = video(tmp_path / "dogs.avi", [BLUE] * 15)
    done = run("two_cameras.py", cats, dogs, TINY)
    answers = [line.rsplit(": ", 1) for line in done.stdout.splitlines()]
    assert [answer.split()[0] for name, answer in answers if name == str(cats)] == ["cat"] * 20
    assert [answer.split()[0] for name, answer in answers if name == str(dogs)] == ["dog"] * 15
    assert "35 frames" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["loop.py", "two_cameras.py", "http_endpoint.py"])
def test_an_example_ends_at_ctrl_c(name: str, tmp_path: Path) -> None:
    long = video(tmp_path / "long.avi", [RED] * 6000)
    sources = {"loop.py": [long], "two_cameras.py": [long, long], "http_endpoint.py": ["0"]}
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *map(str, sources[name]), str(TINY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=60)
    assert process.returncode in (1, 130)
    assert "Traceback" not in complaint
    assert len(said.splitlines()) < 5000


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal to one thread")
def test_two_cameras_end_where_another_thread_receives_ctrl_c(tmp_path: Path) -> None:
    """Python handles it in the main thread, which the system does not wake for that."""
    long = video(tmp_path / "long.avi", [RED] * 6000)
    command = [sys.executable, str(EXAMPLES / "two_cameras.py"), str(long), str(long), str(TINY)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        os.kill(max(threads), signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(said.splitlines()) < 5000


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("name", ["loop.py", "two_cameras.py"])
@pytest.mark.parametrize("end", ["| head -1", ">/dev/full"])
def test_an_example_whose_answers_go_nowhere_says_so_in_a_line(
    name: str, end: str, tmp_path: Path
) -> None:
    if "full" in end and not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    cats = str(video(tmp_path / "cats.avi", [RED] * 300))
    sources = [cats] * (1 + (name == "two_cameras.py"))
    typed = shlex.join([sys.executable, str(EXAMPLES / name), *sources, str(TINY)])
    done = subprocess.run(
        f"{typed} {end}", shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert len(done.stdout.splitlines()) == ("head" in end)
    assert done.stderr.splitlines()[-1].startswith(f"{name}: [Errno ")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_folder_to_csv(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for index in range(20):
        (folder / f"{index:02}.jpg").write_bytes(jpeg(RED))
    (folder / "below" / "dog.jpg").write_bytes(jpeg(BLUE))
    (folder / "broken.jpg").write_bytes(b"nothing")
    done = run("folder_to_csv.py", folder, tmp_path / "out.csv", TINY)
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 21
    assert rows["00.jpg"]["label"] == "cat"
    dog = rows[str(Path("below") / "dog.jpg")]
    assert dog["label"] == "dog"
    assert float(dog["dog"]) > 0.9 > float(dog["cat"])
    assert "broken.jpg" in done.stderr


@pytest.mark.slow
def test_a_folder_to_csv_with_what_there_may_be(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(RED))
    if sys.platform == "linux":
        (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(jpeg(BLUE))
    run("folder_to_csv.py", tmp_path, tmp_path / "out.csv", TINY)
    rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == (3 if sys.platform == "linux" else 2)
    for target, model, said in (
        ("no/out.csv", TINY, "No such file"),
        ("o.csv", "no", "no model no"),
    ):
        done = run("folder_to_csv.py", tmp_path, tmp_path / target, model, check=False)
        assert done.returncode == 1
        *warned, last = done.stderr.splitlines()
        assert said in last
        assert "Traceback" not in done.stderr
        # [gpu] without a GPU warns.
        assert not warned or "cuda does not run here" in warned[0]
        assert not (tmp_path / target).exists()
    if Path("/dev/full").is_char_device():
        done = run("folder_to_csv.py", tmp_path, "/dev/full", TINY, check=False)
        assert done.stderr.splitlines()[-1].startswith("folder_to_csv.py: [Errno 28]")
        assert "Traceback" not in done.stderr


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of the running example."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "http_endpoint.py"), "0", str(TINY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().split()[-1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_the_endpoint(endpoint: str) -> None:
    with urllib.request.urlopen(endpoint, jpeg(BLUE), timeout=30) as reply:
        assert json.load(reply)["label"] == "dog"
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(endpoint, b"no picture", timeout=30)
    caught.value.close()
    for length in ("-1", "9" * 5000, "1e3", "\u00b2"):
        odd = urllib.request.Request(endpoint, headers={"Content-Length": length}, method="POST")
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            urllib.request.urlopen(odd, timeout=30)
        caught.value.close()
    with urllib.request.urlopen(endpoint, jpeg(RED), timeout=30) as reply:
        assert json.load(reply)["label"] == "cat"
