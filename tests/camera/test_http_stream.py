"""Cameras behind HTTP: MJPEG as cheap ones send it, and snapshot addresses."""

from __future__ import annotations

import http.server
import itertools
import time

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras import servers
from support.cameras.http_answers import (
    MIXED,
    PARTS,
    PICTURES,
    Answer,
    head,
    opened,
    serving,
    streaming,
    taken,
)
from support.cameras.numbered_frames import numbered

from catdog_edge import Camera, CameraError
from catdog_edge.camera.http_stream import HttpStream, NotJpegError, StreamError


@pytest.mark.parametrize("kind", PARTS)
def test_mjpeg_as_cheap_cameras_send_it(kind: str) -> None:
    with serving(streaming(*PARTS[kind], 0.01)) as url:
        assert taken(opened(url), 12) == [n % 8 for n in range(12)]


@pytest.mark.parametrize("kind", ["image/jpg", "a size in the type", "another boundary"])
def test_a_camera_plays_mjpeg_that_ffmpeg_does_not(kind: str) -> None:
    with serving(streaming(*PARTS[kind], 0.05)) as url, Camera(url, retries=0) as camera:
        frames = [camera.read(timeout=20) for _ in range(5)]
    seen = [servers.read_stamp(frame.image) for frame in frames]
    indices = [frame.index for frame in frames]
    assert [(b - a) % 8 for a, b in itertools.pairwise(seen)] == [
        (b - a) % 8 for a, b in itertools.pairwise(indices)
    ]
    assert camera.counts.damaged == 0


def test_a_backlog_is_skipped_to_its_newest_picture() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type=MIXED)
        handler.wfile.write(b"".join(b"--frame\r\n\r\n" + p for p in PICTURES))
        time.sleep(5)

    with serving(answer) as url, Camera(url, retries=0) as camera:
        while servers.read_stamp(camera.read(timeout=20).image) != 7:
            pass
    counts = camera.counts
    assert counts.received == counts.delivered + counts.replaced == 8
    assert counts.replaced >= 4


# Snapshot addresses.


def snapshots(asked: list[float], **fields: object) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        picture = PICTURES[len(asked) % 8]
        asked.append(time.monotonic())
        length = {"Content_Length": len(picture)} if "Content_Length" not in fields else {}
        head(handler, **{**length, **fields})
        handler.wfile.write(picture)

    return answer


@pytest.mark.parametrize(
    "fields",
    [
        {"Content_Type": "image/jpeg"},
        {"Content_Type": "image/jpg", "Connection": "close"},
        {"Content_Type": "application/octet-stream"},
        {},
        {"Content_Type": MIXED},
    ],
    ids=str,
)
def test_a_snapshot_address_is_polled(fields: dict[str, object]) -> None:
    asked: list[float] = []
    with serving(snapshots(asked, **fields)) as url:
        assert taken(opened(url), 5) == [0, 1, 2, 3, 4]
    assert asked[4] - asked[0] > 0.15, "no faster than twenty a second"


def test_a_snapshot_whose_connection_stays_open_is_polled() -> None:
    asked: list[float] = []
    answer = snapshots(asked, Content_Type="image/jpeg", Content_Length=10**6)

    def hanging(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler)
        time.sleep(5)

    with serving(hanging) as url:
        assert taken(opened(url), 3) == [0, 1, 2]


def test_a_snapshot_address_may_send_png() -> None:
    _done, data = cv2.imencode(".png", numbered(5))

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type="image/png")
        handler.wfile.write(data.tobytes())

    with serving(answer) as url, Camera(url, retries=0, fps=10) as camera:
        assert servers.read_stamp(camera.read(timeout=20).image) == 5
        assert servers.read_stamp(camera.read(timeout=20).image) == 5


@pytest.mark.slow
@pytest.mark.clock
def test_a_slow_snapshot_address_is_live_all_the_time() -> None:
    asked: list[float] = []
    told: list[str] = []
    with (
        serving(snapshots(asked, Content_Type="image/jpeg")) as url,
        Camera(
            url, fps=0.4, timeout=1, retries=0, on_state=lambda _c, state, _r: told.append(state)
        ) as camera,
    ):
        frames = [camera.read(timeout=20) for _ in range(3)]
    assert [servers.read_stamp(frame.image) for frame in frames] == [0, 1, 2]
    assert told == ["connecting", "live", "ended"]
    assert all(b - a == pytest.approx(2.5, abs=0.3) for a, b in itertools.pairwise(asked))


def test_a_stream_that_broke_off_once_is_no_snapshot_for_ever() -> None:
    calls = itertools.count()
    endless = streaming(*PARTS["as it should be"], 0.01)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if next(calls):
            endless(handler)
            return
        head(handler, Content_Type=MIXED)
        handler.wfile.write(b"--frame\r\n\r\n" + PICTURES[7])

    with serving(answer) as url:
        stream = opened(url)
        assert taken(stream, 6) == [7, 0, 1, 2, 3, 4]
        assert stream.interval == 0


# Logins and redirects.


# What is no camera.


def test_reasons_are_in_our_own_words() -> None:
    def page(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type="text/html; charset=utf-8")
        handler.wfile.write(b"<html>no video here</html>" * 100)

    def missing(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_error(404)

    def garbled(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\x01garbage\r\n\r\n")

    def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(1)

    def empty(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type=MIXED)

    with serving(page) as url, pytest.raises(NotJpegError, match="answers with text/html"):
        opened(url)
    with serving(missing) as url, pytest.raises(StreamError, match=r"no such path \(error 404\)"):
        opened(url)
    with serving(garbled) as url, pytest.raises(NotJpegError, match="does not speak HTTP"):
        opened(url)
    with serving(silent) as url, pytest.raises(StreamError, match=r"no answer within 0\.3 s"):
        HttpStream(url, timeout=0.3, fps=1)
    with serving(empty) as url, pytest.raises(StreamError, match="sends no image"):
        taken(opened(url), 1)
    with pytest.raises(StreamError, match="connection refused"):
        opened(f"http://127.0.0.1:{servers.free_port()}/")
    with serving(page) as url:
        camera = Camera(url, retries=0)
        with camera, pytest.raises(CameraError, match=r"given up, .*: it answers with text/html"):
            camera.read(timeout=30)
