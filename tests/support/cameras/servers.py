"""Real servers on loopback for the tests of cameras: RTSP (GStreamer's) and HTTP MJPEG.

The RTSP half is `benchmarks/studies/camera_server.py`, which is in no wheel and so is loaded
from its file. The script at the bottom is the process of the MJPEG server.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

_FILE = Path(__file__).resolve().parents[3] / "benchmarks" / "studies" / "camera_server.py"
_spec = importlib.util.spec_from_file_location("camera_server", _FILE)
_module = sys.modules["camera_server"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

from camera_server import (  # noqa: F401 - tests take them from here
    BITS,
    BLOCK,
    SYSTEM_PYTHON,
    Garbage,
    RtspServer,
    ServerProcess,
    drawing,
    encode_h264,
    free_port,
    photographs,
    random_bytes,
    read_stamp,
    stamp,
)

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
    """Explain why the RTSP server cannot run here; empty where it can."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON}, which GStreamer's RTSP server needs"
    command = [SYSTEM_PYTHON, "-c", _PROBE]
    probe = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if probe.returncode or probe.stdout.strip():
        return f"{probe.stdout.strip() or 'no GStreamer RTSP server'} (see {_FILE})"
    return ""


def open_files() -> int:
    """How many files, sockets and pipes this process has open; 0 where that cannot be told."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, while it changes
    except OSError:
        return 0


def children() -> list[int]:
    """The processes that this process has started and that have not been waited for.

    Without the resource tracker of multiprocessing, which any `spawn` pool starts and which
    lives as long as the interpreter.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = entry.read_text().rpartition(")")[2].split()
            command = entry.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(state[1]) == os.getpid() and b"multiprocessing.resource_tracker" not in command:
            found.append(int(entry.parent.name))
    return found


class MjpegServer(ServerProcess):
    """The JPEG files of a folder, looped, at `http://127.0.0.1:PORT/`."""

    def __init__(self, folder: Path, fps: float, login: str = "") -> None:
        command = [sys.executable, __file__, "--folder", str(folder), "--login", login]
        super().__init__(command, free_port(), fps, len(list(folder.glob("*.jpg"))))
        self.url = f"http://127.0.0.1:{self.port}/"


def _serve_mjpeg(options: argparse.Namespace) -> None:
    pictures = [path.read_bytes() for path in sorted(Path(options.folder).glob("*.jpg"))]
    garbage = Garbage()
    epoch = time.monotonic()
    secret = base64.b64encode(options.login.encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if options.login and self.headers.get("Authorization") != f"Basic {secret}":
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
                data = random_bytes(len(data)) if garbage.on else data
                try:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                    self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
                except OSError:
                    return

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    print("ready", epoch, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--login")
    _serve_mjpeg(parser.parse_args())
