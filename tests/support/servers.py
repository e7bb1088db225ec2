"""Real servers on loopback for the tests of cameras: RTSP (GStreamer's) and HTTP MJPEG.

Two halves. The classes start a server in a process of its own, which the tests freeze
(SIGSTOP), kill, restart and make send garbage. The script at the bottom is that process: the
RTSP half runs under the system's Python, which has `gi`, and so imports the standard library
alone. Every served frame carries its number as a row of black and white blocks and is sent
when it is due, so that a test can say how old a picture is that comes out at the other end.

Debian packages of the RTSP half: python3-gi gir1.2-gst-rtsp-server-1.0
gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
gstreamer1.0-plugins-ugly.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
BITS = 12
BLOCK = 16
"""A frame's number: `BITS` blocks of `BLOCK` pixels, lowest bit first, along the top."""

_PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [e for e in ("appsrc", "h264parse", "rtph264pay", "x264enc", "rawvideoparse",
                       "videoconvert", "filesink") if not Gst.ElementFactory.find(e)]
print("missing GStreamer elements: " + ", ".join(missing) if missing else "")
"""


@functools.cache
def rtsp_missing() -> str:
    """Why the RTSP server cannot run here; empty where it can."""
    packages = (
        "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 "
        "gstreamer1.0-plugins-{base,good,bad,ugly}"
    )
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON}, which GStreamer's RTSP server needs"
    probe = subprocess.run(
        [SYSTEM_PYTHON, "-c", _PROBE], capture_output=True, text=True, timeout=60
    )
    if probe.returncode or probe.stdout.strip():
        return f"{probe.stdout.strip() or 'no GStreamer RTSP server'} ({packages})"
    return ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def open_files() -> int:
    """How many files, sockets and pipes this process has open; 0 where that cannot be told."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, while it changes
    except OSError:
        return 0


def children() -> list[int]:
    """The processes that this process has started and that have not been waited for."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(state[1]) == os.getpid():
            found.append(int(entry.parent.name))
    return found


def stamp(frame, number: int) -> None:
    """Draw a number (below 4096) along the top of a `uint8 [H,W,3]` frame, in place."""
    for bit in range(BITS):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)


def read_stamp(frame) -> int:
    """The number that `stamp` drew, also after lossy coding."""
    quarter = BLOCK // 4
    number = 0
    for bit in range(BITS):
        left = bit * BLOCK
        block = frame[quarter : BLOCK - quarter, left + quarter : left + BLOCK - quarter]
        number |= int(block.mean() > 127) << bit
    return number


def encode_h264(frames, path: Path, fps: int, keyframe_every: int | None = None) -> Path:
    """Write frames (`uint8 [H,W,3]` BGR, all of one size) as an H.264 byte stream."""
    encoder = None
    for frame in frames:
        if encoder is None:
            height, width = frame.shape[:2]
            command = [SYSTEM_PYTHON, __file__, "encode", "--out", str(path), "--fps", str(fps)]
            command += ["--size", f"{width}x{height}"]
            command += ["--keyframe-every", str(keyframe_every or fps)]
            encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
        encoder.stdin.write(frame.tobytes())
    encoder.stdin.close()
    assert encoder.wait(timeout=120) == 0, "the H.264 encoder failed"
    return path


class _Process:
    """A server in a process of its own, on one port for its whole life."""

    def __init__(self, command: list[str], port: int, fps: float, frames: int) -> None:
        self.command = command
        self.port = port
        self.fps = fps
        self.frames = frames
        self.epoch = 0.0
        self.process: subprocess.Popen | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the server did not start: {line}"
        self.epoch = float(line[1])

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        """Stop the process without closing its connections."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def say(self, command: str) -> None:
        """`garbage` or `clean`: what to send from now on."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def age(self, number: int, now: float | None = None) -> float:
        """How long ago, in seconds, the frame of this number was last sent."""
        elapsed = (time.monotonic() if now is None else now) - self.epoch
        return (elapsed - number / self.fps) % (self.frames / self.fps)


class RtspServer(_Process):
    """An H.264 byte stream, looped, at `rtsp://127.0.0.1:PORT/stream`."""

    def __init__(
        self, video: Path, fps: int, frames: int, user: str = "", password: str = ""
    ) -> None:
        port = free_port()
        command = [SYSTEM_PYTHON, __file__, "rtsp", "--port", str(port), "--video", str(video)]
        command += ["--fps", str(fps), "--user", user, "--password", password]
        super().__init__(command, port, fps, frames)
        self.url = f"rtsp://127.0.0.1:{port}/stream"


class MjpegServer(_Process):
    """The JPEG files of a folder, looped, at `http://127.0.0.1:PORT/`."""

    def __init__(self, folder: Path, fps: float, user: str = "", password: str = "") -> None:
        port = free_port()
        command = [sys.executable, __file__, "mjpeg", "--port", str(port), "--folder", str(folder)]
        command += ["--fps", str(fps), "--user", user, "--password", password]
        super().__init__(command, port, fps, len(list(folder.glob("*.jpg"))))
        self.url = f"http://127.0.0.1:{port}/"


# What follows runs in the process of the server.


class _Garbage:
    """Whether noise is sent in place of the video; told on standard input."""

    def __init__(self) -> None:
        self.on = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.on = line.strip() == "garbage"
        os._exit(0)  # the test that started this server is gone


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _ready(epoch: float) -> None:
    print("ready", epoch, flush=True)


def _encode(options: argparse.Namespace) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    width, height = options.size.split("x")
    pipeline = Gst.parse_launch(
        f"fdsrc fd=0 ! rawvideoparse format=bgr width={width} height={height} "
        f"framerate={options.fps}/1 ! videoconvert ! video/x-raw,format=I420 ! x264enc "
        f"tune=zerolatency speed-preset=ultrafast threads=1 key-int-max={options.keyframe_every} "
        "bframes=0 aud=true byte-stream=true pass=quant quantizer=23 "
        "! video/x-h264,stream-format=byte-stream,alignment=au,profile=baseline "
        f"! filesink location={options.out}"
    )
    pipeline.set_state(Gst.State.PLAYING)
    ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        raise SystemExit(str(message.parse_error()))


def _access_units(path: str) -> list[tuple[bytes, bool]]:
    """The access units of a byte stream that has delimiters, each with whether it is a key."""
    delimiter = b"\0\0\0\1\x09"
    units = [delimiter + unit for unit in Path(path).read_bytes().split(delimiter)[1:]]
    return [(unit, b"\0\0\1\x65" in unit) for unit in units]


def _serve_rtsp(options: argparse.Namespace) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    units = _access_units(options.video)
    garbage = _Garbage()
    epoch = time.monotonic()

    def feed(source) -> None:
        """Send each frame when it is due; after a pause go on with the next key frame."""
        last = int((time.monotonic() - epoch) * options.fps)
        waiting = True
        while True:
            time.sleep(max(0.0, epoch + (last + 1) / options.fps - time.monotonic()))
            due = int((time.monotonic() - epoch) * options.fps + 1e-6)
            waiting = waiting or due > last + 3  # it was frozen: the frames between are gone
            last = max(due, last + 1)
            data, key = units[last % len(units)]
            if waiting and not key:
                continue
            waiting = False
            if garbage.on:
                data = b"\0\0\0\1\x41" + _noise(len(data))
            if source.emit("push-buffer", Gst.Buffer.new_wrapped(data)) != Gst.FlowReturn.OK:
                return

    def configure(_factory, media) -> None:
        source = media.get_element().get_child_by_name("src")
        threading.Thread(target=feed, args=(source,), daemon=True).start()

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=src is-live=true format=time do-timestamp=true "
        "caps=video/x-h264,stream-format=byte-stream,alignment=au "
        "! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    if options.user:
        role = "viewer"
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", role)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.from_string(
                f"{role},media.factory.access=true,media.factory.construct=true"
            )[0]
        )
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    _ready(epoch)
    GLib.MainLoop().run()


def _serve_mjpeg(options: argparse.Namespace) -> None:
    pictures = [path.read_bytes() for path in sorted(Path(options.folder).glob("*.jpg"))]
    garbage = _Garbage()
    epoch = time.monotonic()
    secret = base64.b64encode(f"{options.user}:{options.password}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if options.user and self.headers.get("Authorization") != f"Basic {secret}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            while True:
                elapsed = (time.monotonic() - epoch) * options.fps
                due = int(elapsed) + 1
                time.sleep((due - elapsed) / options.fps)
                data = pictures[due % len(pictures)]
                data = _noise(len(data)) if garbage.on else data
                try:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                    self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
                except OSError:
                    return

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    _ready(epoch)
    server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["encode", "rtsp", "mjpeg"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--video")
    parser.add_argument("--folder")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--out")
    parser.add_argument("--size")
    parser.add_argument("--keyframe-every", type=int)
    options = parser.parse_args()
    if options.what == "encode":
        options.fps = int(options.fps)
        _encode(options)
    elif options.what == "rtsp":
        _serve_rtsp(options)
    else:
        _serve_mjpeg(options)


if __name__ == "__main__":
    _main()
