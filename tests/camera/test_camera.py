"""`Camera`: recordings, addresses that hold secrets, and the rules by which frames are old."""

from __future__ import annotations

import base64
import math
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

cv2 = pytest.importorskip("cv2")

from support import servers

from catdog_edge import Camera, CameraError, CatdogError
from catdog_edge.camera.camera import Frame, State
from catdog_edge.camera.credentials import Mask, ffmpeg_url, masked
from catdog_edge.camera.freshness import STALE, DamageFilter, Freshness
from catdog_edge.camera.mjpeg import JpegSplitter


def numbered(number: int, width: int = 320, height: int = 180) -> np.ndarray:
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[60:120, 100:200] = (number * 7 % 256, 120, 200)
    servers.stamp(frame, number)
    return frame


def video(path: Path, frames: int = 50, fps: float = 25, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (320, 180))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(numbered(number))
    writer.release()
    return path


def jpeg(number: int) -> bytes:
    done, data = cv2.imencode(".jpg", numbered(number), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


def numbers(frames: list[Frame]) -> list[int]:
    return [servers.read_stamp(frame.image) for frame in frames]


# Videos.


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v")]
)
def test_a_video_gives_every_frame_in_order(tmp_path: Path, suffix: str, codec: str) -> None:
    path = video(tmp_path / f"porch{suffix}", 50, 25, codec)
    start = datetime(2026, 11, 22, 15, 4, 5, tzinfo=UTC)
    with Camera(path, start=start) as camera:
        frames = list(camera)
        assert camera.state is State.ENDED
    assert numbers(frames) == list(range(50))
    assert [frame.index for frame in frames] == list(range(50))
    assert np.allclose([frame.monotonic for frame in frames], np.arange(50) / 25, atol=0.002)
    assert frames[0].wall == pytest.approx(start.timestamp(), abs=0.002)
    assert frames[49].wall == pytest.approx(start.timestamp() + 49 / 25, abs=0.003)
    assert {frame.dropped for frame in frames} == {0}
    assert frames[0].source == "porch"
    assert camera.counts.received == camera.counts.delivered == 50
    assert not camera.note


def test_a_slow_consumer_misses_nothing_of_a_video(tmp_path: Path) -> None:
    with Camera(video(tmp_path / "a.avi", 8, 100)) as camera:
        seen = []
        for frame in camera:
            time.sleep(0.03)
            seen.append(frame)
    assert numbers(seen) == list(range(8))


def test_realtime_waits_until_a_frame_is_due(tmp_path: Path) -> None:
    with Camera(video(tmp_path / "a.avi", 10, 20), realtime=True) as camera:
        first = camera.read()
        assert first is not None
        assert camera.read(timeout=0) is None, "the second frame is not due at once"
        assert 0 < camera.due() <= 1 / 20
        begun = time.monotonic()
        rest = list(camera)
        took = time.monotonic() - begun
    assert numbers(rest) == list(range(1, 10))
    assert took > 7 / 20, "nine frames at 20 per second cannot all have been due"


def test_a_region_is_cut_out(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 2)
    with Camera(path) as whole, Camera(path, roi=(100, 60, 50, 40)) as part:
        one, other = whole.read(), part.read()
    assert one is not None
    assert other is not None
    assert other.image.shape == (40, 50, 3)
    assert np.array_equal(other.image, one.image[60:100, 100:150])
    assert other.image.flags.c_contiguous


def test_a_region_outside_of_the_frames_is_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 2)
    told = pytest.raises(CameraError, match=r"a: the region 300,100,50,40 .* 320x180")
    with Camera(path, roi=(300, 100, 50, 40)) as camera, told:
        camera.read()
    with pytest.raises(CameraError, match="impossible"):
        Camera(path, roi=(-1, 0, 5, 5))
    with pytest.raises(CameraError, match="impossible"):
        Camera(path, roi=(0, 0, 0, 5))
    for wrong in ((1, 2, 3), "0,0,1,1", (0, 0, math.inf, 1), 5):
        with pytest.raises(CameraError, match="a region is four numbers"):
            Camera(path, roi=wrong)


def test_a_truncated_video_plays_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    path = video(tmp_path / "whole.avi", 50)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Camera(cut) as camera:
        frames = list(camera)
        assert camera.ended
    seen = numbers(frames)
    assert 10 < len(seen) < 45
    assert seen == list(range(len(seen)))
    assert str(cut) in camera.note
    assert "cut off" in camera.note


@pytest.mark.parametrize("content", [b"", b"no video at all", os.urandom(5000)])
def test_a_file_that_is_no_video_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with Camera(path) as camera:
        with pytest.raises(CameraError, match=r"broken\.mp4: cannot be read as a video"):
            camera.read()
        assert camera.read() is None
        assert camera.state is State.ENDED


def test_an_mp4_without_its_index_is_one_error(tmp_path: Path) -> None:
    path = video(tmp_path / "whole.mp4", 50, 25, "mp4v")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Camera(cut) as camera, pytest.raises(CameraError, match="cannot be read as a video"):
        camera.read()


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a.avi", 3).rename(tmp_path / "12:30:05.avi")
    with Camera("12:30:05.avi") as camera:
        assert numbers(list(camera)) == [0, 1, 2]
    assert camera.name == "12_30_05"


def test_states_of_a_video_are_told(tmp_path: Path) -> None:
    told = []
    path = video(tmp_path / "a.avi", 2)
    with Camera(path, on_state=lambda camera, state, reason: told.append(state)) as camera:
        list(camera)
    assert told == [State.CONNECTING, State.LIVE, State.ENDED]


@pytest.mark.parametrize("closed_at", [State.CONNECTING, State.LIVE, State.RETRYING])
def test_a_callback_may_close_the_camera_and_is_told_of_the_end_once(
    tmp_path: Path, closed_at: State
) -> None:
    told = []

    def close(camera: Camera, state: State, reason: str) -> None:
        told.append(state)
        if state is closed_at:
            camera.close()

    nobody = f"rtsp://127.0.0.1:{servers.free_port()}/x"
    source = nobody if closed_at is State.RETRYING else video(tmp_path / "a.avi", 3)
    with Camera(source, on_state=close) as camera:
        list(camera)
    assert told[-2:] == [closed_at, State.ENDED]
    assert told.count(State.ENDED) == 1


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.avi")
    with pytest.raises(CameraError, match=r"f\.avi: is a pipe or a device.* name - as the source"):
        Camera(tmp_path / "f.avi")


def test_an_address_of_a_file_is_the_file(tmp_path: Path) -> None:
    path = video(tmp_path / "a b.avi", 2)
    with Camera(path.as_uri()) as camera:
        assert not camera.is_live
        assert numbers(list(camera)) == [0, 1]


# Pictures.


def test_a_folder_of_pictures_passes_over_broken_ones(tmp_path: Path) -> None:
    for number in (0, 1, 2, 4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "3.jpg").write_bytes(jpeg(3)[:900])
    (tmp_path / "5.png").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("not even called one")
    with Camera(tmp_path, fps=2) as camera:
        frames = list(camera)
    assert numbers(frames) == [0, 1, 2, 4]
    assert [frame.monotonic for frame in frames] == [0, 0.5, 1.0, 2.0]
    assert [frame.dropped for frame in frames] == [0, 0, 0, 1]
    assert camera.counts.damaged == 2
    assert camera.counts.received == 6
    assert "5.png" in camera.note


def test_a_glob_and_a_single_picture(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"shot{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "other.jpg").write_bytes(jpeg(9))
    with Camera(str(tmp_path / "shot*.jpg")) as camera:
        assert numbers(list(camera)) == [0, 1, 2]
    with Camera(tmp_path / "other.jpg") as camera:
        assert numbers(list(camera)) == [9]


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="there is no such file"):
        Camera(tmp_path / "gone.mp4")
    with pytest.raises(CameraError, match="there are no pictures there"):
        Camera(tmp_path)
    with pytest.raises(CameraError, match="there are no pictures there"):
        Camera(str(tmp_path / "*.jpg"))
    if sys.platform == "linux":
        with pytest.raises(CameraError, match=r"there is no camera 977 \(/dev/video977\)"):
            Camera(977)
        with pytest.raises(CameraError, match="there is no such file"):
            Camera("/dev/video977")
    with pytest.raises(CameraError, match="the source is empty"):
        Camera("")


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 1)
    for options in ({"timeout": 0}, {"open_timeout": math.nan}, {"fps": -1}, {"retries": -1}):
        with pytest.raises(CameraError, match="must be"):
            Camera(path, **options)
    for start in (datetime.min, datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(CameraError, match="in the years 1000 to 8999"):
            Camera(path, start=start)
    with pytest.raises(CameraError, match="fps must be at least"):
        Camera(path, fps=1e-300)
    with pytest.raises(CameraError, match="cannot be called"):
        Camera(path, name="../../etc")


# A stream of JPEGs.


def test_the_splitter_finds_pictures_whatever_the_pieces() -> None:
    thumbnail = jpeg(7)[:400] + b"\xff\xd9"
    inside = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    pictures = [jpeg(0), jpeg(1)[:2] + inside + jpeg(1)[2:], jpeg(2)]
    done, progressive = cv2.imencode(".jpg", numbered(3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    pictures.append(progressive.tobytes())
    stream = b"garbage \xff\x00" + pictures[0] + b"\r\n--boundary\r\n" + b"".join(pictures[1:])
    for size in (1, 7, 1000, len(stream)):
        splitter = JpegSplitter()
        found = []
        for at in range(0, len(stream), size):
            found += splitter.feed(stream[at : at + size])
        assert found == pictures, f"in pieces of {size}"


def test_the_splitter_gets_over_a_picture_that_is_cut_off() -> None:
    splitter = JpegSplitter()
    found = splitter.feed(jpeg(0) + jpeg(1)[:2000] + jpeg(2) + os.urandom(3000) + jpeg(3))
    assert found[0] == jpeg(0)
    assert jpeg(3) in found
    assert splitter.feed(jpeg(4)) == [jpeg(4)]


_COUNT = """
import sys
sys.path.insert(0, {tests!r})
import time
from support import servers
from catdog_edge import Camera
with Camera("-", fps=10) as camera:
    for frame in camera:
        print(servers.read_stamp(frame.image), frame.dropped, flush=True)
        time.sleep({work})
print("counts", camera.counts.received, camera.counts.delivered, camera.counts.replaced,
      camera.counts.damaged, camera.state)
"""


def _script(work: float = 0.0) -> list[str]:
    return [sys.executable, "-c", _COUNT.format(tests=str(ROOT / "tests"), work=work)]


def test_jpegs_from_a_file_on_standard_input_all_come(tmp_path: Path) -> None:
    path = tmp_path / "stream.mjpeg"
    path.write_bytes(b"".join(jpeg(n) if n != 3 else jpeg(n)[:300] for n in range(6)))
    with path.open("rb") as stream:
        done = subprocess.run(_script(), stdin=stream, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = [int(line.split()[0]) for line in done.stdout.splitlines()[:-1]]
    assert seen in ([0, 1, 2, 4, 5], [0, 1, 2, 5])
    assert done.stdout.splitlines()[-1].endswith("ended")


def to_stdin(data: bytes, piped: bool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard input be a file or a pipe that holds these bytes."""
    if piped:
        assert len(data) <= 1 << 16, "more than a pipe holds"
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        stream = os.fdopen(reading, "rb")
    else:
        path.write_bytes(data)
        stream = path.open("rb")
    monkeypatch.setattr(sys, "stdin", stream)


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_pictures_cut_off_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    half = len(jpeg(1)) // 2
    data = jpeg(0) + jpeg(1)[:half] + jpeg(2) + jpeg(3)[:half]
    to_stdin(data, piped, tmp_path / "stream", monkeypatch)
    with sys.stdin, Camera("-") as camera:
        frames = list(camera)
        assert frames[-1].index == 2
        assert (camera.counts.received, camera.counts.damaged) == (4, 2)
        assert "picture 3 on standard input: it is cut off (and 1 before it)" in camera.note


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("data", [b"", b"noise" * 10_000])
def test_standard_input_without_a_picture_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, piped: bool
) -> None:
    to_stdin(data, piped, tmp_path / "stream", monkeypatch)
    with (
        sys.stdin,
        Camera("-") as camera,
        pytest.raises(CameraError, match="standard input: there is no picture in it"),
    ):
        list(camera)


def test_a_folder_without_a_whole_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    told = pytest.raises(CameraError, match=r"there is no picture in it .* passed over .*a\.png")
    with Camera(tmp_path) as camera, told:
        list(camera)


def test_a_closed_standard_input_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CameraError, match="standard input is closed"):
        Camera("-")


def test_jpegs_from_a_pipe_are_live() -> None:
    process = subprocess.Popen(
        _script(work=0.2), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False
    )
    for number in range(40):
        process.stdin.write(jpeg(number))
        process.stdin.flush()
        time.sleep(0.02)
    process.stdin.close()
    lines = process.stdout.read().decode().splitlines()
    assert process.wait(timeout=30) == 0
    seen = [int(line.split()[0]) for line in lines[:-1]]
    assert seen == sorted(seen)
    assert len(seen) < 30, "a consumer of five frames a second cannot see all of fifty a second"
    assert seen[-1] == 39, "the newest one is seen"
    received, delivered, replaced, damaged = map(int, lines[-1].split()[1:5])
    assert received == 40
    assert delivered == len(seen)
    assert received == delivered + replaced + damaged
    assert sum(int(line.split()[1]) for line in lines[:-1]) == replaced


def test_closing_a_pipe_that_sends_nothing_is_quick() -> None:
    script = _COUNT.replace("for frame in camera:", "for frame in [camera.read(timeout=0.2)] * 0:")
    script = script.format(tests=str(ROOT / "tests"), work=0)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.wait(timeout=10) == 0
    process.stdin.close()
    process.stdout.close()


# Secrets.

SECRET = "s3cr3t-Wort"
ADDRESSES = [
    (f"rtsp://porter:{SECRET}@camera/stream", SECRET),
    (f"rtsp://porter:{SECRET}%40x@camera:8554/stream?channel=1", f"{SECRET}@x"),
    (f"rtsp://porter:{SECRET}/with@signs@camera/stream", f"{SECRET}/with@signs"),
    (f"http://camera/video.cgi?user=porter&pwd={SECRET}", SECRET),
    (f"rtsp://camera:554/user=porter_password={SECRET}_channel=1_stream=0.sdp", SECRET),
    (f"rtmp://camera/live/key={SECRET}", SECRET),
]


@pytest.mark.parametrize(("address", "password"), ADDRESSES)
def test_no_secret_in_anything_that_can_be_read(address: str, password: str) -> None:
    camera = Camera(address)
    login = base64.b64encode(f"porter:{password}".encode()).decode()
    error = f"cannot open '{address}': password {password}"
    if "porter:" in address:
        error += f", Authorization: Basic {login}"
    said = Mask(address)(error)
    assert said.startswith("cannot open '")
    for text in (masked(address), repr(camera), camera.name, camera.described, said):
        assert SECRET not in text
        assert "porter" not in text
        assert login not in text
    assert "camera" in repr(camera)


def test_plain_addresses_stay_readable() -> None:
    assert masked("rtsp://camera:554/live/ch0") == "rtsp://camera:554/live/ch0"
    assert masked("rtsp://user:secret@camera:554/live") == "rtsp://***@camera:554/live"
    mask = Mask("rtsp://user:secret@camera/live")
    assert mask("401 (Unauthorized) for camera") == "401 (Unauthorized) for camera"


def test_a_slip_in_an_address_tells_no_secret() -> None:
    for slip in (
        f"rtsp:/porter:{SECRET}@camera/x",
        f"porter:{SECRET}@camera",
        f"rtsp:/porter:{SECRET}*x@camera/x",
        f"front door=http://camera/video?user=porter&pwd={SECRET}",
        f"camera/video.cgi?user=porter&pwd={SECRET}",
        f"tür=rtsp://camera/user=porter_password={SECRET}_channel=1.sdp",
        f"door=cam?token={SECRET * 40}",
    ):
        with pytest.raises(CatdogError) as caught:
            Camera(slip)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (f"http://camera:9?user=porter@mail.de&pwd={SECRET}", "camera"),
        (f"rtsp://porter:{SECRET}/ET?PW@camera:9/x", "camera"),
        (f"rtsp://porter:1x2/{SECRET}?PW@camera:9/x", "camera"),
        (f"http://cam;user=porter;pwd={SECRET}/", "camera"),
        (f"rtsp://cam,pwd={SECRET}/x", "camera"),
        (f"http://door#pwd={SECRET}", "door"),
        (f"rtsp://door:9/porter/{SECRET}/ch1", "door"),
        (f"rtmp://door/live/{SECRET}", "door"),
    ],
)
def test_what_may_be_a_password_is_not_taken_for_a_host(address: str, name: str) -> None:
    camera = Camera(address)
    failed = Mask(address)(f"Failed to resolve hostname {address.partition('//')[2]}: unknown")
    assert camera.name == name
    for text in (repr(camera), camera.described, failed):
        assert SECRET not in text
        assert "porter" not in text
        assert "mail.de" not in text


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


def test_passwords_are_escaped_for_ffmpeg() -> None:
    assert ffmpeg_url("rtsp://a:b/c@d@cam/x") == "rtsp://a:b%2Fc%40d@cam/x"
    assert ffmpeg_url("rtsp://a:b%2Fc@cam/x") == "rtsp://a:b%2Fc@cam/x"
    assert ffmpeg_url("rtsp://a:100%@cam/x") == "rtsp://a:100%25@cam/x"
    assert ffmpeg_url("rtsp://cam/x?a=b@c") == "rtsp://cam/x?a=b@c"
    assert ffmpeg_url("RTSP://Cam/X") == "rtsp://Cam/X"


# Which frames are old or damaged.


def lags(
    stamps: list[float], arrivals: list[float], *, timed: bool = True, queued: bool = False
) -> list[float]:
    fresh = Freshness(timed=timed)
    pairs = zip(arrivals, stamps, strict=True)
    return [fresh.lag(arrival, stamp, queued=queued) for arrival, stamp in pairs]


def test_a_burst_after_a_connect_is_old_until_it_caught_up() -> None:
    stamps = [n / 10 for n in range(40)]
    # 20 frames lie ready and come within milliseconds, the others when they are made.
    arrivals = [100 + n / 1000 for n in range(20)] + [100 + (n - 19) / 10 for n in range(20, 40)]
    found = lags(stamps, arrivals)
    assert all(lag > STALE for lag in found[:20])
    assert max(found[21:]) < 0.1


def test_frames_kept_back_by_the_network_are_old() -> None:
    stamps = [n / 10 for n in range(100)]
    arrivals = [n / 10 for n in range(50)] + [max(n / 10, 8.0) for n in range(50, 100)]
    found = lags(stamps, arrivals)
    assert max(found[1:50]) < 0.01
    assert all(lag > STALE for lag in found[50:69]), "made more than a second before they came"
    assert max(found[81:]) < 0.01, "those that were made afterwards are not old"


def test_a_stream_that_falls_behind_slowly_is_noticed() -> None:
    stamps = [n / 10 for n in range(400)]
    arrivals = [n / 10 * 1.1 for n in range(400)]
    found = lags(stamps, arrivals, queued=True)
    assert found[20] < STALE < found[200], "ten percent slower: a second behind after ten"


@pytest.mark.parametrize("drift", [1.0003, 0.9997])
def test_a_camera_clock_that_drifts_is_not_a_delay(drift: float) -> None:
    stamps = [n * drift for n in range(100_000)]  # a day
    assert max(lags(stamps, [float(n) for n in range(100_000)])[1:]) < 0.1


def test_a_camera_whose_clock_was_set_goes_on() -> None:
    stamps = [n / 10 for n in range(50)] + [n / 10 - 3600 for n in range(50, 100)]
    assert max(lags(stamps, [n / 10 for n in range(100)])[1:]) < 0.01


def test_without_times_the_frame_after_a_silence_is_old() -> None:
    arrivals = [0.0, 0.1, 0.2, 0.3, 3.0, 3.1, 3.2]
    assert [lag > STALE for lag in lags(arrivals, arrivals, timed=False)] == [
        *[False] * 4,
        True,
        False,
        False,
    ]
    slow = [4.0 * n for n in range(10)]
    assert max(lags(slow, slow, timed=False)) == 0, "a slow camera is not a silent one"


def test_after_damage_only_a_key_frame_is_believed() -> None:
    whole = DamageFilter()
    error = ["[h264 @ 0x55d0c0ffee] error while decoding MB 3 7"]
    harmless = [
        "[rtsp @ 0x1] max delay reached. need to consume packet",
        "[swscaler @ 0x1] deprecated pixel format used",
        "[mjpeg @ 0x1] unable to decode APP fields: Invalid data found",
    ]
    i, p = ord("I"), ord("P")
    told = [
        whole.is_intact(*frame)
        for frame in [([], i), (harmless, p), (error, p), ([], p), (error, i), ([], i), ([], p)]
    ]
    assert told == [True, True, False, False, False, True, True]


# A live source that is not there.


def test_reading_gives_up_after_its_timeout_and_close_is_quick() -> None:
    told: list[State] = []
    url = f"rtsp://127.0.0.1:{servers.free_port()}/nothing"
    before = threading.active_count()
    files = servers.open_files()
    with Camera(url, on_state=lambda camera, state, reason: told.append(state)) as camera:
        assert camera.read(timeout=1.5) is None
        assert camera.state in (State.CONNECTING, State.RETRYING)
        assert "refused" in camera.reason
        assert camera.read(timeout=0) is None
        begun = time.monotonic()
    assert time.monotonic() - begun < 1, "closing must not wait for the network"
    assert told[:3] == [State.CONNECTING, State.RETRYING, State.CONNECTING]
    assert told[-1] is State.ENDED
    assert threading.active_count() == before
    assert servers.open_files() == files
    assert camera.read() is None


def test_retries_end_in_an_error() -> None:
    url = f"http://porter:{SECRET}@127.0.0.1:{servers.free_port()}/video"
    ages = 1e10  # more seconds than a system can wait for
    with Camera(url, retries=1, timeout=ages, open_timeout=ages) as camera:
        with pytest.raises(CameraError, match=r"given up, failed 2 times in a row: .*refused") as e:
            camera.read(timeout=ages)
        assert SECRET not in str(e.value)
        assert camera.ended
        assert camera.read() is None


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


def test_what_a_callback_raises_reaches_the_reader() -> None:
    def broken(camera: Camera, state: State, reason: str) -> None:
        if state is State.RETRYING:
            raise ZeroDivisionError("mine")

    url = f"rtsp://127.0.0.1:{servers.free_port()}/nothing"
    with Camera(url, on_state=broken) as camera, pytest.raises(ZeroDivisionError, match="mine"):
        camera.read(timeout=20)
