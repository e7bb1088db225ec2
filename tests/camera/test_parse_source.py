"""What a source is: a camera, an address, a video, pictures, or nothing that can be played."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("cv2")

from support.cameras.numbered_frames import animation, encoded, numbers, video

from catdog_edge import Camera, CameraError
from catdog_edge.camera.parse_source import split_name


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.avi")
    with pytest.raises(CameraError, match=r"f\.avi: is a pipe or a device.* name - as the source"):
        Camera(tmp_path / "f.avi")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="there is no such file"):
        Camera(tmp_path / "gone.mp4")
    with pytest.raises(CameraError, match="there are no images there"):
        Camera(tmp_path)
    with pytest.raises(CameraError, match="there are no images there"):
        Camera(str(tmp_path / "*.jpg"))
    if sys.platform == "linux":
        with pytest.raises(CameraError, match=r"there is no camera 977 \(/dev/video977\)"):
            Camera(977)
        with pytest.raises(CameraError, match="there is no such file"):
            Camera("/dev/video977")
    with pytest.raises(CameraError, match="the source is empty"):
        Camera("")


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a.avi", 3).rename(tmp_path / "12:30:05.avi")
    with Camera("12:30:05.avi") as camera:
        assert numbers(list(camera)) == [0, 1, 2]
    assert camera.name == "12_30_05"


def test_a_name_may_have_letters_of_any_script(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 1)
    for name in ("Küche", unicodedata.normalize("NFD", "Küche"), "客厅", "रसोई", "ครัว"):
        path = path.rename(tmp_path / f"{name} & 1.avi")
        with Camera(path) as camera:
            assert camera.name == f"{name}_1"
        with Camera(path, name=name) as camera:
            assert camera.name == name
        assert split_name(f"{name}=0") == (name, "0")
    for text in ("=0", "-a=0", "a b=0", "a="):
        assert split_name(text) == (None, text)


def test_an_address_of_a_file_is_the_file(tmp_path: Path) -> None:
    path = video(tmp_path / "a b.avi", 2)
    with Camera(path.as_uri()) as camera:
        assert not camera.is_live
        assert numbers(list(camera)) == [0, 1]


def test_a_glob_and_a_single_picture(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"shot{number}.jpg").write_bytes(encoded(number))
    (tmp_path / "other.jpg").write_bytes(encoded(9))
    with Camera(str(tmp_path / "shot*.jpg")) as camera:
        assert numbers(list(camera)) == [0, 1, 2]
    with Camera(tmp_path / "other.jpg") as camera:
        assert numbers(list(camera)) == [9]


def test_a_folder_is_played_in_natural_order(tmp_path: Path) -> None:
    order = [1, 2, 3, 9, 10, 11, 12, 100, 101]
    for number in order:
        (tmp_path / f"frame{number}.jpg").write_bytes(encoded(number))
    for source in (tmp_path, str(tmp_path / "frame*.jpg")):
        with Camera(source) as camera:
            assert numbers(list(camera)) == order


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.webp", "an animated WebP"),
        ("a.avif", "an animated AVIF"),
        ("a.tiff", "a TIFF of several pages"),
    ],
)
def test_an_animation_that_is_not_played_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    pytest.importorskip("PIL.Image")
    if name.endswith("avif") and not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    path = animation(tmp_path / name, [100] * 5)
    with pytest.raises(CameraError, match=f"{kind} is not played; save it as a video"):
        Camera(path)
