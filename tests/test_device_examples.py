"""What the examples give to those who set up a device: cameras, a service, an image."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT, TINY

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

EXAMPLES = ROOT / "examples"
SERVICE = EXAMPLES / "catdog-edge.service"
PICAMERA2 = '''
"""Stands in for the camera: red, then blue, then Ctrl-C; or none is connected."""
import os, time
import numpy as np

class Picamera2:
    def __init__(self):
        self.count = 0
        if "NO_CAMERA" in os.environ:
            raise IndexError("list index out of range")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        print("closed")

    def create_video_configuration(self, main):
        return main

    def configure(self, main):
        (self.width, self.height), form = main["size"], main["format"]
        assert form == "RGB888"

    def start(self):
        self.started = True

    def capture_array(self, name):
        assert self.started and name == "main"
        time.sleep(0.03)
        self.count += 1
        if self.count > 60:
            raise KeyboardInterrupt
        colour = (0, 0, 200) if self.count < 25 else (200, 0, 0)
        return np.full((self.height, self.width, 3), colour, np.uint8)
'''


def run(name: str, *arguments: object, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths} | more,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def told(output: str) -> list[list[str]]:
    """Source, label and what happened, of each line that is an event."""
    return [line.split()[1:4] for line in output.splitlines() if line[:1].isdigit()]


@pytest.mark.clock
def test_picamera2(tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text(PICAMERA2)
    done = run("picamera2_events.py", TINY, path=tmp_path)
    changes = [("cat", "enter"), ("cat", "exit"), ("dog", "enter"), ("dog", "exit")]
    assert told(done.stdout) == [["pi", *change] for change in changes], done.stderr
    assert done.stdout.splitlines()[-1] == "closed"
    assert done.returncode == 130


def test_picamera2_without_a_camera(tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text(PICAMERA2)
    done = run("picamera2_events.py", TINY, path=tmp_path, NO_CAMERA="1")
    assert (done.returncode, done.stderr) == (1, "picamera2_events.py: list index out of range\n")


@pytest.fixture(scope="module")
def gstreamer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Debian's `gi` alone, which this interpreter can load."""
    packages = Path("/usr/lib/python3/dist-packages")
    folder = tmp_path_factory.mktemp("gi")
    if (packages / "gi").is_dir():
        (folder / "gi").symlink_to(packages / "gi")
    tried = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    asked = [sys.executable, "-c", tried]
    if subprocess.run(asked, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("needs GStreamer and its python3-gi for this version of Python")
    return folder


@pytest.mark.clock
def test_gstreamer_with_lines_that_are_filled_up(gstreamer: Path) -> None:
    camera = (
        "videotestsrc is-live=true pattern=red num-buffers=40 ! "
        "video/x-raw,width=66,height=48,framerate=25/1"
    )
    done = run("jetson_events.py", camera, TINY, path=gstreamer)
    assert told(done.stdout) == [["jetson", "cat", "enter"], ["jetson", "cat", "exit"]], done.stderr
    assert "no frame comes" in done.stderr
    assert done.returncode == 1


def test_gstreamer_without_a_camera(gstreamer: Path) -> None:
    done = run("jetson_events.py", "nonsense", TINY, path=gstreamer)
    assert done.returncode == 1
    assert 'no element "nonsense"' in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SERVICE)
    return parser["Service"]


def test_systemd_accepts_the_service(tmp_path: Path, service: configparser.SectionProxy) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd is not installed")
    unit = tmp_path / SERVICE.name
    program = service["ExecStart"].split()[0]
    unit.write_text(SERVICE.read_text().replace(program, sys.executable))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("UMask=", "Umask="))  # it does look
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert "Umask" in done.stderr


def test_the_command_of_the_service_writes_what_it_says(
    tmp_path: Path, service: configparser.SectionProxy
) -> None:
    _, *arguments = shlex.split(service["ExecStart"].replace("$$", "$"))
    state = tmp_path / "catdog-edge"
    state.mkdir()
    arguments = [argument.replace("%S", str(tmp_path)) for argument in arguments]
    file = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for _ in range(15):
        writer.write(np.full((48, 64, 3), (0, 0, 200), np.uint8))
    writer.release()
    done = subprocess.run(
        [sys.executable, "-m", "catdog_edge", *arguments, "--model", str(TINY), "--reject", "0.1"],
        env=os.environ | {"CAMERA": str(file)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"cat"' in (state / "events.jsonl").read_text()
    assert list((state / "visitors").glob("*door-cat-enter*.jpg"))


DOCKERFILE = EXAMPLES / "Dockerfile"


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    if not beside.is_file():
        pytest.skip("hadolint is not installed; install [dev]")
    done = subprocess.run([beside, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_copies_what_a_wheel_is_made_of_and_runs_as_a_user() -> None:
    text = DOCKERFILE.read_text()
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M) for name in line.split()
    }
    assert copied == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "catdog_edge",
        "exporters",
        "benchmarks",
    }
    assert all((ROOT / name).exists() for name in copied if ROOT.joinpath("Makefile").exists())
    last = text[text.rindex("FROM ") :]
    assert int(re.findall(r"^USER (\d+)$", last, re.M)[-1]) > 0
