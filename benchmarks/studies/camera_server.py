"""An RTSP server on loopback, in a process of its own, for `camera_soak` and tests of cameras.

Every frame has its number as a row of blocks and is sent when it is due, so that its age at the
other end is known. The process is this file under the system's Python, which has `gi`; so it
imports the standard library alone. Debian packages: python3-gi gir1.2-gst-rtsp-server-1.0
gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
gstreamer1.0-plugins-ugly.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

SYSTEM_PYTHON = "/usr/bin/python3"

BITS, BLOCK = 12, 16  # blocks of a frame's number along its top, lowest bit first; their pixels


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def stamp(frame: Any, number: int) -> None:
    """Draw a number below 4096 along the top of a `uint8 [H,W,3]` frame, in place."""
    for bit in range(BITS):
        frame[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)


def read_stamp(frame: Any) -> int:
    """Read the number that `stamp` drew, also after lossy coding."""
    middle = slice(BLOCK // 4, BLOCK - BLOCK // 4)
    blocks = (frame[:BLOCK, left:][middle, middle] for left in range(0, BITS * BLOCK, BLOCK))
    return sum(int(block.mean() > 127) << bit for bit, block in enumerate(blocks))


def photographs(kind: str, count: int) -> list[Any]:
    """Return frames of 640x360 that show a `cat`, a `dog` or a `street`, `uint8 [H,W,3]` BGR.

    From archives in `$CATDOG_SHARED` or `../shared/data`; drawings without them.
    """
    import cv2
    import numpy as np

    shared = os.environ.get("CATDOG_SHARED") or Path(__file__).resolve().parents[3] / "shared/data"
    archive = Path(shared, "other.zip" if kind == "street" else "originals.zip")
    if not archive.is_file():
        return [drawing(kind, seed) for seed in range(count)]
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in sorted(opened.namelist()) if name.endswith(".jpg")]
        names = [n for n in names if kind == "street" or Path(n).name.startswith(kind)]
        data = [np.frombuffer(opened.read(name), np.uint8) for name in names[:count]]
    decoded = (cv2.imdecode(one, cv2.IMREAD_COLOR) for one in data)
    return [fill_frame(image, 640, 360, cv2.INTER_AREA) for image in decoded]


def fill_frame(image: Any, width: int, height: int, interpolation: int) -> Any:
    """Crop the middle of an image and scale it so that it fills a frame."""
    import cv2

    scale = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(scale * image.shape[1])), max(height, round(scale * image.shape[0]))
    scaled = cv2.resize(image, size, interpolation=interpolation)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[top : top + height, left : left + width].copy()


def drawing(kind: str, seed: int) -> Any:
    """Draw a frame of one colour with some structure: red for a cat, blue for a dog, else grey."""
    import cv2
    import numpy as np

    generator = np.random.default_rng([seed, len(kind)])
    colour = {"cat": (20, 20, 200), "dog": (200, 20, 20)}.get(kind, (120, 120, 120))
    coarse = np.asarray(colour, float) + generator.normal(0, 12, (9, 16, 1))
    coarse = coarse.clip(0, 255).astype(np.uint8)
    return cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC)


def encode_h264(frames: Iterable[Any], path: Path, fps: int) -> Path:
    """Write frames (`uint8 [H,W,3]` BGR, all of one size) as an H.264 byte stream."""
    encoder: subprocess.Popen[bytes] | None = None
    for frame in frames:
        if encoder is None:
            height, width = frame.shape[:2]
            command = [SYSTEM_PYTHON, __file__, "encode", "--out", str(path), "--fps", str(fps)]
            command += ["--size", f"{width}x{height}"]
            encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert encoder.stdin is not None
        encoder.stdin.write(frame.tobytes())
    assert encoder is not None
    encoder.communicate(timeout=120)
    assert encoder.returncode == 0, "the H.264 encoder failed"
    return path


class ServerProcess:
    """A server in a process of its own, on one port for its whole life."""

    process: subprocess.Popen[str]

    def __init__(self, command: list[str], port: int, fps: float, frames: int) -> None:
        self.command = [*command, "--port", str(port), "--fps", str(fps)]
        self.port, self.fps, self.frames, self.epoch = port, fps, frames, 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the server did not start: {line}"
        self.epoch = float(line[1])

    def kill(self) -> None:
        """End the process; its connections are reset."""
        self.process.kill()
        with self.process:  # closes the pipes
            pass

    def freeze(self) -> None:
        """Stop the process without closing its connections."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        self.process.send_signal(signal.SIGCONT)

    def send(self, what: str) -> None:
        """Choose what is sent from now on: `garbage` or `clean`."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def age(self, number: int, now: float | None = None) -> float:
        """Return the seconds since the frame of this number was last sent."""
        elapsed = (time.monotonic() if now is None else now) - self.epoch
        return (elapsed - number / self.fps) % (self.frames / self.fps)


class RtspServer(ServerProcess):
    """Loops an H.264 byte stream at `url`; a client must have `login`, as `user:password`."""

    def __init__(self, video: Path, fps: float, frames: int, login: str = "") -> None:
        command = [SYSTEM_PYTHON, __file__, "rtsp", "--video", str(video), "--login", login]
        super().__init__(command, free_port(), fps, frames)
        self.url = f"rtsp://127.0.0.1:{self.port}/stream"


# What follows runs in the process of the server.


class Garbage:
    """Check whether noise is sent in place of the video; switched by lines on standard input."""

    def __init__(self) -> None:
        self.on = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.on = line.strip() == "garbage"
        os._exit(0)  # the program that started this server is gone


def random_bytes(size: int) -> bytes:
    """Return the same random bytes each time."""
    return random.Random(size).randbytes(size)


def _gstreamer() -> tuple[Any, Any, Any]:
    import gi  # type: ignore[import-not-found]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]

    Gst.init(None)
    return GLib, Gst, GstRtspServer


def _encode(options: argparse.Namespace) -> None:
    _, Gst, _ = _gstreamer()  # noqa: N806 - their names
    width, height = options.size.split("x")
    pipeline = Gst.parse_launch(
        f"fdsrc fd=0 ! rawvideoparse format=bgr width={width} height={height} "
        f"framerate={round(options.fps)}/1 ! videoconvert ! video/x-raw,format=I420 ! x264enc "
        f"tune=zerolatency speed-preset=ultrafast threads=1 key-int-max={round(options.fps)} "
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
    """Split a byte stream with delimiters into access units, each with whether it is a key."""
    delimiter = b"\0\0\0\1\x09"
    units = [delimiter + unit for unit in Path(path).read_bytes().split(delimiter)[1:]]
    return [(unit, b"\0\0\1\x65" in unit) for unit in units]


def _due_frames(video: str, fps: float, epoch: float) -> Iterator[bytes]:
    """Yield each access unit when it is due; resume with the next key frame after a pause."""
    units = _access_units(video)
    last = int((time.monotonic() - epoch) * fps)
    waiting = True
    while True:
        time.sleep(max(0.0, epoch + (last + 1) / fps - time.monotonic()))
        due = int((time.monotonic() - epoch) * fps + 1e-6)
        waiting = waiting or due > last + 3  # it was frozen: the frames between are gone
        last = max(due, last + 1)
        data, key = units[last % len(units)]
        if not waiting or key:
            waiting = False
            yield data


def _serve(options: argparse.Namespace) -> None:
    GLib, Gst, GstRtspServer = _gstreamer()  # noqa: N806 - their names
    garbage = Garbage()
    epoch = time.monotonic()

    def feed(source: Any) -> None:
        for unit in _due_frames(options.video, options.fps, epoch):
            data = b"\0\0\0\1\x41" + random_bytes(len(unit)) if garbage.on else unit
            buffer = Gst.Buffer.new_wrapped(data)
            if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return

    def configure(_factory: Any, media: Any) -> None:
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
    if options.login:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*options.login.split(":", 1)), token)
        server.set_auth(auth)
        role = "viewer,media.factory.access=true,media.factory.construct=true"
        factory.add_role_from_structure(Gst.Structure.from_string(role)[0])
    server.get_mount_points().add_factory("/stream", factory)
    server.attach(None)
    print("ready", epoch, flush=True)
    GLib.MainLoop().run()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["encode", "rtsp"])
    for name in ("--video", "--login", "--out", "--size"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    parser.add_argument("--fps", type=float)
    options = parser.parse_args()
    (_encode if options.what == "encode" else _serve)(options)


if __name__ == "__main__":
    _main()
