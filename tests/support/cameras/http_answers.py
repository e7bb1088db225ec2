"""Cameras behind HTTP, in this process: what they send is a function."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import cv2
from support.cameras import servers
from support.cameras.numbered_frames import encoded

from catdog_edge.camera.http_stream import HttpStream

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


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


PICTURES = [encoded(number) for number in range(8)]


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
