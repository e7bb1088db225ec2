"""Addresses of cameras: how they are read, and that no secret in them is shown."""

from __future__ import annotations

import base64
import socket
import threading

import pytest

pytest.importorskip("cv2")


from catdog_edge import Camera, CameraError, CatdogError
from catdog_edge.camera.credentials import Mask, ffmpeg_url, host, is_valid, masked, split_userinfo

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


def test_passwords_are_escaped_for_ffmpeg() -> None:
    assert ffmpeg_url("rtsp://a:b/c@d@cam/x") == "rtsp://a:b%2Fc%40d@cam/x"
    assert ffmpeg_url("rtsp://a:b%2Fc@cam/x") == "rtsp://a:b%2Fc@cam/x"
    assert ffmpeg_url("rtsp://a:100%@cam/x") == "rtsp://a:100%25@cam/x"
    assert ffmpeg_url("rtsp://cam/x?a=b@c") == "rtsp://cam/x?a=b@c"
    assert ffmpeg_url("RTSP://Cam/X") == "rtsp://Cam/X"


@pytest.mark.parametrize(
    ("url", "userinfo", "rest"),
    [
        ("rtsp://host/live@2", "", "host/live@2"),
        ("rtsp://host:554/live@2?x=a@b", "", "host:554/live@2?x=a@b"),
        ("rtsp://porter:pw@host/live@2", "porter:pw", "host/live@2"),
        ("rtsp://porter:pw@host:8554/user@mail.de/1", "porter:pw", "host:8554/user@mail.de/1"),
        ("http://host?mail=a@b.de", "", "host?mail=a@b.de"),
        ("http://host#a@b.de", "", "host#a@b.de"),
        ("rtsp://porter:12/x@camera/1", "", "porter:12/x@camera/1"),
        ("rtsp://[::1]:554/live@2", "", "[::1]:554/live@2"),
        ("rtsp://porter:p%40w@[fe80::1%25eth0]/x", "porter:p%40w", "[fe80::1%25eth0]/x"),
        # Not valid; with one way to read it, it is repaired.
        ("rtsp://porter:a/b@camera/1", "porter:a/b", "camera/1"),
        ("rtsp://porter:a?b#c@camera:9/1", "porter:a?b#c", "camera:9/1"),
        ("rtsp://a@b:c@camera/1", "a@b:c", "camera/1"),
        ("rtsp://porter:a b/c@d#1@camera/1", "porter:a b/c@d#1", "camera/1"),
    ],
)
def test_a_valid_address_is_read_as_it_is(url: str, userinfo: str, rest: str) -> None:
    assert split_userinfo(url) == (url[:7], userinfo, rest)
    assert is_valid(url)


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://porter:{SECRET}@camera:5x4/live@2",
        f"rtsp://porter:{SECRET}@cam era/live@2",
        f"rtsp://porter:a/{SECRET}@camera/live@2",
        f"http://camera:8x/video?password={SECRET}&mail=a@b.de",
        "rtsp:///stream",
    ],
)
def test_a_login_is_never_moved_to_another_host(url: str) -> None:
    assert host(url) not in ("2", "b.de")
    with pytest.raises(CameraError, match="host and port cannot be told apart") as caught:
        Camera(url)
    assert SECRET not in str(caught.value)


def test_a_path_with_an_at_sign_is_asked_of_its_host() -> None:
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with listener.accept()[0] as connection:
                asked.append(connection.recv(4096).decode().splitlines()[0])

        thread = threading.Thread(target=answer)
        thread.start()
        with Camera(f"rtsp://porter:{SECRET}@127.0.0.1:{port}/live@2"):
            thread.join(20)
    assert asked == [f"OPTIONS rtsp://127.0.0.1:{port}/live@2 RTSP/1.0"]


@pytest.mark.parametrize("address", [r"rtsp://door\live/x@2", "rtsp://front door/live@yard"])
def test_without_a_colon_there_is_no_login_to_repair(address: str) -> None:
    assert split_userinfo(address)[1] == ""
    assert not is_valid(address)
