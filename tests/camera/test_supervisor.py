"""Live cameras against real servers on loopback: killed, frozen, fed garbage, started late."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras import clips, servers

from catdog_edge import Camera, CameraError
from catdog_edge.camera.camera import State

FPS = 15
FRAMES = 300
"""Twenty seconds, so that the age of a frame is known up to that."""

BACK_WITHIN = 5.0
OLDEST = 1.0
"""What is promised: frames within five seconds of a server's return, none older than one."""

pytestmark = pytest.mark.slow
needs_rtsp = pytest.mark.skipif(bool(servers.rtsp_missing()), reason=servers.rtsp_missing() or "-")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtsp") / "served.h264"
    return servers.encode_h264(clips.stamped(FRAMES), path, FPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mjpeg")
    for number, frame in enumerate(clips.stamped(FRAMES)):
        cv2.imwrite(str(path / f"{number:04}.jpg"), frame)
    return path


@pytest.fixture
def server(video: Path) -> Iterator[servers.RtspServer]:
    with servers.RtspServer(video, FPS, FRAMES) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread, file handle or process more than before.

    Fewer may be: what a test of another file left may end meanwhile.
    """
    threads, files = set(threading.enumerate()), servers.open_files()
    yield
    assert set(threading.enumerate()) <= threads
    assert servers.open_files() <= files
    assert servers.children() == []


def look(camera: Camera, server: servers.ServerProcess, seconds: float) -> list[float]:
    """Ages of the frames that come within some seconds; none may be old or none of ours."""
    ages = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        frame = camera.read(timeout=left)
        if frame is None:
            continue
        age = server.age(servers.read_stamp(frame.image))
        assert age < OLDEST, f"frame {frame.index} is {age:.2f} s old or is no frame of the camera"
        ages.append(age)
    return ages


def until(camera: Camera, state: State, seconds: float = 20) -> None:
    """Wait for a state while reading whatever comes."""
    end = time.monotonic() + seconds
    while camera.state is not state:
        assert time.monotonic() < end, f"still {camera.state} ({camera.reason}), not {state}"
        camera.read(timeout=0.1)


def returns(camera: Camera, server: servers.ServerProcess) -> None:
    """Frames come again in time, and keep coming."""
    begun = time.monotonic()
    while camera.read(timeout=0.1) is None:
        assert time.monotonic() - begun < BACK_WITHIN, f"{camera.state}: {camera.reason}"
    assert len(look(camera, server, 1.5)) > FPS
    assert camera.state is State.LIVE


@needs_rtsp
def test_frames_come_fresh_each_once_and_counted(server: servers.RtspServer) -> None:
    with Camera(server.url, name="door") as camera:
        seen = []
        for frame in camera:
            number = servers.read_stamp(frame.image)
            assert server.age(number) < OLDEST
            seen.append((number, frame))
            if len(seen) == 30:
                break
    indices = [frame.index for _number, frame in seen]
    assert indices == sorted(set(indices))
    for (one, before), (other, after) in itertools.pairwise(seen):
        assert (other - one) % FRAMES == after.index - before.index == after.dropped + 1
        assert after.monotonic > before.monotonic
        assert after.wall - before.wall == pytest.approx(
            after.monotonic - before.monotonic, abs=0.1
        )
    assert seen[0][1].source == "door"
    assert seen[0][1].live
    assert seen[0][1].image.flags.writeable, "the picture is the consumer's own"
    counts = camera.counts
    assert counts.delivered == 30
    lost = counts.replaced + counts.stale + counts.damaged
    assert counts.received == counts.delivered + lost


@needs_rtsp
def test_a_slow_consumer_sees_the_newest_frame(server: servers.RtspServer) -> None:
    with Camera(server.url) as camera:
        assert camera.read(timeout=20) is not None
        dropped = 0
        for _ in range(4):
            time.sleep(0.5)
            frame = camera.read(timeout=1)
            assert frame is not None
            dropped += frame.dropped
            age = server.age(servers.read_stamp(frame.image))
            # One interval for the picture to be sent whole, one until the next takes its place.
            assert age < 0.45, "older than what half a second of work would have queued"
        assert dropped > 4 * 0.5 * FPS / 2
        assert camera.counts.replaced == pytest.approx(dropped, abs=2)


@needs_rtsp
def test_a_region_is_cut_out_at_the_source(server: servers.RtspServer) -> None:
    region = (0, 0, servers.BITS * servers.BLOCK, servers.BLOCK)
    with Camera(server.url, roi=region) as camera:
        frame = camera.read(timeout=20)
        assert frame is not None
        assert frame.image.shape == (servers.BLOCK, servers.BITS * servers.BLOCK, 3)
        assert server.age(servers.read_stamp(frame.image)) < OLDEST
    told = pytest.raises(CameraError, match=r"600,0,100,100 is not inside .* 640x360")
    with Camera(server.url, roi=(600, 0, 100, 100)) as camera, told:
        camera.read(timeout=20)


def test_a_server_that_is_killed_and_comes_back(server: servers.RtspServer) -> None:
    with Camera(server.url) as camera:
        assert camera.read(timeout=20) is not None
        server.kill()
        until(camera, State.RETRYING)
        assert look(camera, server, 2.5) == [], "a server that is gone has no frames"
        server.start()
        returns(camera, server)
        assert camera.counts.connects == 2


@needs_rtsp
def test_a_long_outage_does_not_make_the_return_slow(server: servers.RtspServer) -> None:
    with Camera(server.url) as camera:
        assert camera.read(timeout=20) is not None
        server.kill()
        until(camera, State.RETRYING)
        end = time.monotonic() + 12  # by now attempts are ten seconds apart
        while time.monotonic() < end:
            assert camera.read(timeout=1) is None
        server.start()
        returns(camera, server)


@needs_rtsp
def test_a_server_that_starts_after_the_client(video: Path) -> None:
    server = servers.RtspServer(video, FPS, FRAMES)
    with Camera(server.url) as camera:
        assert camera.read(timeout=2.5) is None
        assert camera.state in (State.CONNECTING, State.RETRYING)
        with server:
            returns(camera, server)


@needs_rtsp
@pytest.mark.parametrize("seconds", [2.0, pytest.param(6.5)])
def test_a_server_that_is_frozen(server: servers.RtspServer, seconds: float) -> None:
    """Shorter than the timeout the connection lives on; longer, it is given up."""
    with Camera(server.url, timeout=3) as camera:
        assert camera.read(timeout=20) is not None
        server.freeze()
        until(camera, State.STALLED)
        assert "no frame" in camera.reason
        end = time.monotonic() + seconds - 1
        while time.monotonic() < end:
            assert camera.read(timeout=0.2) is None
        server.thaw()
        returns(camera, server)
        assert camera.counts.connects == (1 if seconds < 3 else 2)


@needs_rtsp
def test_garbage_never_becomes_a_frame(server: servers.RtspServer) -> None:
    with Camera(server.url, timeout=3) as camera:
        assert camera.read(timeout=20) is not None
        server.send("garbage")
        until(camera, State.STALLED)
        assert look(camera, server, 3.5) == []
        server.send("clean")
        returns(camera, server)


@needs_rtsp
def test_closing_is_quick_in_every_state(server: servers.RtspServer, video: Path) -> None:
    def close_when(reached: Callable[[Camera], bool], url: str, **options: float) -> None:
        with Camera(url, **options) as camera:
            end = time.monotonic() + 20
            while not reached(camera):
                assert time.monotonic() < end
                camera.read(timeout=0.05)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1.0, camera
        assert camera.state is State.ENDED

    close_when(lambda camera: camera.state is State.CONNECTING, server.url)
    close_when(lambda camera: camera.state is State.LIVE, server.url)
    with Camera(server.url) as camera:
        until(camera, State.LIVE)
        server.freeze()
        until(camera, State.STALLED)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.0
    # A connection that the kernel accepts and nobody answers.
    close_when(lambda camera: time.monotonic() > begun + 3, server.url)
    server.thaw()
    nobody = f"rtsp://127.0.0.1:{servers.free_port()}/stream"
    close_when(lambda camera: camera.state is State.RETRYING, nobody)


@needs_rtsp
def test_a_capture_process_that_dies_is_replaced(server: servers.RtspServer) -> None:
    with Camera(server.url) as camera:
        assert camera.read(timeout=20) is not None
        (victim,) = set(servers.children()) - {server.process.pid}
        os.kill(victim, signal.SIGKILL)
        until(camera, State.RETRYING)
        assert "exit code -9" in camera.reason
        returns(camera, server)
        (victim,) = set(servers.children()) - {server.process.pid}
        os.kill(victim, signal.SIGSTOP)  # as a call into FFmpeg that never comes back
        until(camera, State.STALLED)
        until(camera, State.RETRYING)
        returns(camera, server)


_READER = """
import sys
from catdog_edge import Camera
camera = Camera(sys.argv[1])
print(camera.read(timeout=20) is not None, flush=True)
sys.stdin.read()
"""


def marked(mark: str) -> list[int]:
    """The processes with a mark in their environment, whoever is their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CATDOG_TEST_MARK={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "forgets to close"])
def test_a_reader_that_ends_without_closing_leaves_no_process(folder: Path, killed: bool) -> None:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with servers.MjpegServer(folder, FPS) as server:
        reader = subprocess.Popen(
            [sys.executable, "-c", _READER, server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "CATDOG_TEST_MARK": mark},
        )
        assert reader.stdout.readline() == b"True\n"
        assert len(marked(mark)) == 2, "the reader and the process that holds its camera"
        if killed:
            reader.kill()
        _out, said = reader.communicate(timeout=30)
        assert reader.returncode == (-signal.SIGKILL if killed else 0)
        assert said == b""
        end = time.monotonic() + 5
        while marked(mark) and time.monotonic() < end:
            time.sleep(0.05)
        assert marked(mark) == []


SECRET = "pa ss/w@rd#1"


@needs_rtsp
def test_a_login_works_and_shows_nowhere(video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = []
    with servers.RtspServer(video, FPS, FRAMES, f"porter:{SECRET}") as server:
        right = server.url.replace("://", f"://porter:{SECRET}@")
        wrong = server.url.replace("://", f"://porter:{SECRET}x@")
        with Camera(right, on_state=lambda *state: told.append(state)) as camera:
            assert camera.read(timeout=20) is not None
            for process in servers.children():
                assert SECRET not in Path(f"/proc/{process}/environ").read_text()
                if process != server.process.pid:
                    assert SECRET not in Path(f"/proc/{process}/cmdline").read_text()
        camera = Camera(wrong, retries=1, on_state=lambda *state: told.append(state))
        with camera, pytest.raises(CameraError, match="401") as caught:
            camera.read(timeout=20)
    out, err = capfd.readouterr()
    for text in (out, err, str(caught.value), str(told), repr(caught.value.__cause__)):
        assert "pa ss" not in text
        assert "porter" not in text
    assert err == "", "what FFmpeg has to say is said in states and errors"


def test_an_mjpeg_server(folder: Path) -> None:
    with servers.MjpegServer(folder, FPS) as server, Camera(server.url, timeout=3) as camera:
        returns(camera, server)
        server.kill()
        until(camera, State.RETRYING)
        server.start()
        returns(camera, server)
        server.freeze()
        until(camera, State.STALLED)
        server.thaw()
        returns(camera, server)
        server.freeze()
        until(camera, State.RETRYING)
        server.thaw()
        returns(camera, server)
        server.send("garbage")
        until(camera, State.STALLED)
        server.send("clean")
        returns(camera, server)


def test_an_mjpeg_server_with_a_login(folder: Path) -> None:
    with servers.MjpegServer(folder, FPS, "porter:s3cret:x") as server:
        url = server.url.replace("://", "://porter:s3cret:x@")
        with Camera(url) as camera:
            returns(camera, server)
        with Camera(server.url, retries=0) as camera, pytest.raises(CameraError, match="401"):
            camera.read(timeout=20)
