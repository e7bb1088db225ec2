"""Cameras behind HTTP: MJPEG as cheap ones send it, snapshot addresses, logins and redirects."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

cv2 = pytest.importorskip("cv2")

from support import servers
from support.pictures import encoded, numbered

from catdog_edge import Camera, CameraError
from catdog_edge.camera.http_stream import HttpStream, NotJpegError, StreamError

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
PICTURES = [encoded(number) for number in range(8)]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """An HTTP server on loopback that answers every GET by a function; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def head(handler: http.server.BaseHTTPRequestHandler, **fields: object) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for name, value in fields.items():
        handler.wfile.write(f"{name.replace('_', '-')}: {value}\r\n".encode())
    handler.wfile.write(b"\r\n")


def opened(url: str, fps: float = 20.0) -> HttpStream:
    return HttpStream(url, timeout=3, fps=fps)


def taken(stream: HttpStream, count: int) -> list[int]:
    """The numbers of the next pictures; -1 for one that is cut off.

    One reading may bring more than one picture where the machine is busy.
    """
    found: list[int] = []
    with contextlib.closing(stream):
        while len(found) < count:
            found += [servers.read_stamp(decoded(p)) if p else -1 for p in stream.read()]
    return found[:count]


def decoded(picture: bytes):
    import numpy as np

    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)


MIXED = "multipart/x-mixed-replace; boundary=frame"
PARTS = {
    "as it should be": (
        {"Content_Type": MIXED},
        lambda p: (
            b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(p), p)
        ),
    ),
    "image/jpg": (
        {"Content_Type": MIXED},
        lambda p: b"--frame\r\nContent-Type: image/jpg\r\n\r\n%b\r\n" % p,
    ),
    "a size in the type": (
        {"Content_Type": MIXED},
        lambda p: b"--frame\r\nContent-Type: image/jpeg;size=%d\r\n\r\n%b\r\n" % (len(p), p),
    ),
    "no type, no length": ({"Content_Type": MIXED}, lambda p: b"--frame\r\n\r\n%b\r\n" % p),
    "another boundary": (
        {"Content_Type": MIXED},
        lambda p: b"\r\n--myboundary\r\nContent-Type: image/jpeg\r\n\r\n%b" % p,
    ),
    "a wrong length": (
        {"Content_Type": MIXED},
        lambda p: b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 7\r\n\r\n%b\r\n" % p,
    ),
    "bare line feeds": ({"Content_Type": MIXED}, lambda p: b"--frame\nX: y\n\n%b\n" % p),
    "padding": ({"Content_Type": MIXED}, lambda p: b"--frame\r\n\r\n%b%b" % (p, bytes(4096))),
    "no end marker": (
        {"Content_Type": MIXED},
        lambda p: b"--frame\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n" % p[:-2],
    ),
    "no content type": ({}, lambda p: b"--frame\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n" % p),
    "no parts": ({"Content_Type": "video/x-motion-jpeg"}, lambda p: p),
    "a length of the whole": (
        {"Content_Type": MIXED, "Content_Length": 2**64 - 1},
        lambda p: b"--frame\r\n\r\n%b\r\n" % p,
    ),
    "a length of zero": (
        {"Content_Type": MIXED, "Content_Length": 0},
        lambda p: b"--frame\r\n\r\n%b\r\n" % p,
    ),
    "chunks": (
        {"Content_Type": MIXED, "Transfer_Encoding": "chunked"},
        lambda p: b"%x\r\n--frame\r\n\r\n%b\r\n\r\n" % (len(p) + 13, p),
    ),
}


def streaming(fields: dict[str, object], part: Callable[[bytes], bytes], pause: float) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, **fields)
        for picture in itertools.cycle(PICTURES):
            handler.wfile.write(part(picture))
            time.sleep(pause)

    return answer


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

USER, PASSWORD = "porter", "s3cret:/@x"


def with_login(url: str, password: str = "s3cret:%2F%40x") -> str:
    return url.replace("://", f"://{USER}:{password}@") + "/video"


def digest_is_right(header: str, method: str, algorithm: str) -> bool:
    if not header.startswith("Digest "):
        return False
    fields = {
        k: quoted or bare for k, quoted, bare in re.findall(r'(\w+)=(?:"(.*?)"|(\w+))', header)
    }

    def digest(text: str) -> str:
        return hashlib.new(algorithm.replace("-", "").lower(), text.encode()).hexdigest()

    secret = digest(f"{USER}:a camera:{PASSWORD}")
    middle = fields["nonce"]
    if "qop" in fields:
        middle += f":{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
    return fields["response"] == digest(f"{secret}:{middle}:{digest(method + ':' + fields['uri'])}")


@pytest.mark.parametrize(
    ("challenges", "scheme", "algorithm"),
    [
        (['Basic realm="a camera"'], "Basic", ""),
        (['Digest realm="a camera", nonce="ab,c"'], "Digest", "MD5"),
        (['Digest realm="a camera", qop="auth-int, auth", nonce="abc"'], "Digest", "MD5"),
        (['Digest realm="a camera", algorithm=SHA-256, nonce="1", qop=auth'], "Digest", "SHA-256"),
        (['Basic realm="a camera"', 'Digest realm="a camera", nonce="1"'], "Digest", "MD5"),
        (['Basic realm="a camera", Digest realm="a camera", nonce="1"'], "Digest", "MD5"),
        (
            ['Digest realm="a", algorithm=X, nonce="1"', 'Digest realm="a camera", nonce="1"'],
            "Digest",
            "MD5",
        ),
    ],
)
def test_a_login_is_sent_as_it_is_asked_for(
    challenges: list[str], scheme: str, algorithm: str
) -> None:
    logins: list[str | None] = []
    play = streaming(*PARTS["as it should be"], 0.01)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        login = handler.headers.get("Authorization")
        logins.append(login)
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        good = login and (login == basic or digest_is_right(login, "GET", algorithm or "MD5"))
        if good:
            play(handler)
            return
        handler.send_response(401)
        for challenge in challenges:
            handler.send_header("WWW-Authenticate", challenge)
        handler.end_headers()

    with serving(answer) as url:
        assert taken(opened(with_login(url)), 2) == [0, 1]
        assert [login and login.split()[0] for login in logins] == [None, scheme]
        with pytest.raises(StreamError, match=r"asks for another login \(error 401\)"):
            opened(with_login(url, "wrong"))
        with pytest.raises(StreamError, match="error 401"):
            opened(url)


def test_an_unknown_digest_is_no_reason_to_send_the_login_in_clear() -> None:
    logins: list[str | None] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        logins.append(handler.headers.get("Authorization"))
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Digest realm="a", algorithm=X, nonce="1"')
        handler.send_header("WWW-Authenticate", 'Basic realm="a"')
        handler.end_headers()

    with serving(answer) as url, pytest.raises(StreamError):
        opened(with_login(url))
    assert logins == [None]


def test_a_redirect_is_followed_and_the_login_stays_with_its_server() -> None:
    logins: dict[str, list[str | None]] = {"own": [], "other": []}
    play = streaming(*PARTS["as it should be"], 0.01)

    def guarded(where: str) -> Answer:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            if handler.path in targets:
                handler.send_response(302)
                handler.send_header("Location", targets[handler.path])
                handler.end_headers()
                return
            logins[where].append(handler.headers.get("Authorization"))
            if logins[where][-1]:
                play(handler)
                return
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="a camera"')
            handler.end_headers()

        return answer

    targets = {"/video": "/moved"}
    with serving(guarded("other")) as other, serving(guarded("own")) as own:
        assert taken(opened(with_login(own)), 2) == [0, 1]
        assert [login is None for login in logins["own"]] == [True, False]
        targets["/video"] = f"{other}/video2"
        with pytest.raises(StreamError, match="error 401"):
            opened(with_login(own))
        assert logins["other"] == [None]


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
    with serving(empty) as url, pytest.raises(StreamError, match="sends no picture"):
        taken(opened(url), 1)
    with pytest.raises(StreamError, match="connection refused"):
        opened(f"http://127.0.0.1:{servers.free_port()}/")
    with serving(page) as url:
        camera = Camera(url, retries=0)
        with camera, pytest.raises(CameraError, match=r"given up, .*: it answers with text/html"):
            camera.read(timeout=30)


def test_other_video_over_http_is_read_by_ffmpeg(tmp_path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 180))
    for number in range(30):
        writer.write(numbered(number))
    writer.release()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type="video/x-msvideo", Content_Length=path.stat().st_size)
        handler.wfile.write(path.read_bytes())

    with serving(answer) as url, Camera(url + "/clip.avi", retries=0) as camera:
        frame = camera.read(timeout=20)
    assert frame is not None
    assert frame.image.shape == (180, 320, 3)
