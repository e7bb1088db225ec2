"""Videos, animations and folders of pictures: every frame, in order, at its time."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras.numbered_frames import animation, encoded, numbered, numbers, video

from catdog_edge import Camera, CameraError
from catdog_edge.camera.camera import State
from catdog_edge.camera.recording import is_cut_off


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


def test_a_folder_of_pictures_passes_over_broken_ones(tmp_path: Path) -> None:
    for number in (0, 1, 2, 4):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(number))
    (tmp_path / "3.jpg").write_bytes(encoded(3)[:900])
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


def test_a_picture_removed_while_its_folder_is_read_is_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(number))
    with Camera(tmp_path) as camera:
        (tmp_path / "1.jpg").unlink()
        assert numbers(list(camera)) == [0, 2]
    assert camera.counts.damaged == 1
    assert camera.note.endswith("1.jpg: there is no such file")


def test_a_video_removed_while_it_is_read_ends_with_a_note(tmp_path: Path) -> None:
    path = video(tmp_path / "porch.avi", 5)
    with Camera(path) as camera:
        camera.read()
        path.unlink()
        assert numbers(list(camera)) == [1, 2, 3, 4]
        assert camera.ended
    assert "porch.avi: whether it is whole cannot be checked after 5 frames: No such" in camera.note


def test_a_folder_without_a_whole_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    told = pytest.raises(CameraError, match=r"there is no image in it .* skipped .*a\.png")
    with Camera(tmp_path) as camera, told:
        list(camera)


# What is cut off, by the container's own word.


def with_duration(path: Path, seconds: float) -> Path:
    """Change the length that a Matroska file states, as a longer sound track does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    assert 0 < struct.unpack(">d", data[at : at + 8])[0] < 10_000
    data[at : at + 8] = struct.pack(">d", 1000 * seconds)
    path.write_bytes(data)
    return path


def test_a_length_that_is_an_estimate_says_nothing(tmp_path: Path) -> None:
    path = with_duration(video(tmp_path / "a.mkv", 50, 25, "mp4v"), 9.0)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > 200
    with Camera(path) as camera:
        assert numbers(list(camera)) == list(range(50))
        assert camera.note == ""


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_video_cut_off_is_told(tmp_path: Path, suffix: str, cut: float) -> None:
    codec = "MJPG" if suffix == ".avi" else "mp4v"
    path = video(tmp_path / f"whole{suffix}", 50, 25, codec)
    data = path.read_bytes()
    part = tmp_path / f"cut{suffix}"
    part.write_bytes(data[: round(cut * len(data))])
    with Camera(part) as camera:
        seen = numbers(list(camera))
        assert 5 < len(seen) < 50
        assert camera.note == f"{part}: ends after {len(seen)} frames, it is cut off"


def ffmpeg(*arguments: object) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".mov", ".ts"])
def test_a_whole_video_of_variable_rate_with_longer_sound_is_whole(
    tmp_path: Path, suffix: str
) -> None:
    source = video(tmp_path / "a.avi", 60, 25)
    path = tmp_path / f"variable{suffix}"
    codec = ["-c:v", "libvpx" if suffix == ".webm" else "mpeg4", "-b:v", "2M"]
    # Every third frame of the first half only, and ten seconds of nothing in the middle.
    select = "select='gte(n,30)+not(mod(n,3))',setpts='PTS+gte(N,10)*10/TB'"
    ffmpeg(
        *("-i", source, "-f", "lavfi", "-i", "sine=duration=30", "-vf", select),
        *("-fps_mode", "vfr", *codec, path),
    )
    with Camera(path) as camera:
        frames = list(camera)
        assert camera.note == ""
    assert numbers(frames) == [*range(0, 30, 3), *range(30, 60)]
    places = [frame.monotonic - frames[0].monotonic for frame in frames]
    wanted = [n / 25 for n in range(0, 30, 3)] + [10 + n / 25 for n in range(30, 60)]
    assert np.allclose(places, wanted, atol=0.05), "also after the gap"


def test_a_fast_start_mp4_cut_off_is_told(tmp_path: Path) -> None:
    source = video(tmp_path / "a.avi", 100, 25)
    path = tmp_path / "fast.mp4"
    ffmpeg("-i", source, "-c:v", "mpeg4", "-movflags", "+faststart", path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with Camera(path) as camera:
        assert 5 < len(list(camera)) < 95
        assert "it is cut off" in camera.note


def test_a_matroska_stream_of_unknown_size_is_judged_by_its_last_element(tmp_path: Path) -> None:
    source = video(tmp_path / "a.avi", 60, 25)
    path = tmp_path / "live.mkv"
    ffmpeg("-i", source, "-c:v", "mpeg4", "-f", "matroska", "-live", "1", path)
    with Camera(path) as camera:
        assert numbers(list(camera)) == list(range(60))
        assert camera.note == ""
    path.write_bytes(path.read_bytes()[:-500])
    with Camera(path) as camera:
        list(camera)
        assert "it is cut off" in camera.note


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_bytes_after_the_end_cut_off_nothing(tmp_path: Path, suffix: str) -> None:
    path = video(tmp_path / f"a{suffix}", 30, 25)
    whole = path.read_bytes()
    for appended in (b"\xf3\x7c\x02\x99\xa0\x01" * 20, b"\0" * 64, b"\x7f\xff\xff\xff" * 9):
        path.write_bytes(whole + appended)
        assert not is_cut_off(path)
    path.write_bytes(whole[:-200])
    assert is_cut_off(path)


@pytest.mark.parametrize("missing", [0, 1])
def test_large_boxes_of_an_mp4_are_measured(tmp_path: Path, missing: int) -> None:
    boxes = struct.pack(">I4s8x", 16, b"ftyp")
    boxes += struct.pack(">I4sQ", 1, b"mdat", 16 + 50) + bytes(50)  # 64 bits of length
    boxes += struct.pack(">I4s", 8, b"free")
    path = tmp_path / "large.mp4"
    path.write_bytes(boxes[: len(boxes) - 9 * missing])
    assert is_cut_off(path) is bool(missing)


# Animations.


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_an_animation_plays_all_its_frames(tmp_path: Path, name: str) -> None:
    durations = [100] * 25 + [7000, 200] + [100] * 23
    with Camera(animation(tmp_path / name, durations)) as camera:
        frames = list(camera)
        assert camera.note == ""
    assert numbers(frames) == list(range(50))
    places = [0, *np.cumsum(durations[:-1]) / 1000]
    assert np.allclose([frame.monotonic for frame in frames], places, atol=0.02)


def test_frames_of_a_gif_that_are_not_played_are_told(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif", [100] * 5)
    delays = re.compile(rb"\x21\xf9\x04....\x00", re.DOTALL)  # graphic control extensions
    path.write_bytes(delays.sub(b"", path.read_bytes()))
    with Camera(path) as camera:
        played = len(list(camera))  # depends on FFmpeg
        told = f"{path}: {played} of its 5 frames were read, it lacks delays or is damaged"
        assert camera.note.startswith(told) if played < 5 else not camera.note


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_a_still_picture_of_an_animated_format_is_one_frame(tmp_path: Path, name: str) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(numbered(5)[..., ::-1]).save(tmp_path / name)
    for source in (tmp_path / name, tmp_path):
        with Camera(source) as camera:
            assert numbers(list(camera)) == [5]


def test_an_animation_in_a_folder_is_named(tmp_path: Path) -> None:
    animation(tmp_path / "2.gif", [100] * 5)
    for number in (1, 3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(number))
    with Camera(tmp_path) as camera:
        assert numbers(list(camera)) == [1, 3]
        assert "2.gif: it is a GIF of several frames; name it as its own source" in camera.note
