"""Start, talk to and stop one process of `catdog_edge.camera.capture_worker`."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog_edge.camera.credentials import Mask
from catdog_edge.system.child import child_command, child_environment

if TYPE_CHECKING:
    from catdog_edge.images.preprocess import Image

SLOTS = 4
"""Frames in the shared memory: one newest, one being read, one being written, one spare."""

FFMPEG_OPTIONS = (
    "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
)
"""RTSP over TCP, and no more reading ahead than it takes to recognise the stream."""

LONGEST_WAIT = 3600.0
"""Seconds; a socket refuses to wait as long as a caller may ask."""


@dataclass(frozen=True, slots=True)
class SharedFrames:
    """The memory that the process writes frames to.

    Attributes:
        number: Which one of the process's memories, from 0; a new one for a new shape.
        images: `uint8 [SLOTS,H,W,3]` BGR, read-only.
    """

    number: int
    images: Image


class CaptureProcess:
    """A running process and the connection to it.

    Args:
        source: What it will be told to open. A variable that holds it, or its password, is not
            passed on, since whoever may look at a process sees its environment.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, source: str = "") -> None:
        self._connection, theirs = socket.socketpair()
        mask = Mask(source)
        environment = {
            name: value
            for name, value in child_environment().items()
            if name == "PYTHONPATH" or not mask.holds(value)
        }
        # What goes to the log is read there; another level or format would hide complaints.
        for name in ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG", "OPENCV_VIDEOIO_DEBUG"):
            environment.pop(name, None)
        environment.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        environment["OPENCV_LOG_LEVEL"] = "ERROR"
        with theirs:
            self._process = subprocess.Popen(
                child_command("catdog_edge.camera.capture_worker", str(theirs.fileno())),
                stdin=subprocess.PIPE,  # its end tells the process that we are gone
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C in a terminal is for us to act upon
            )
        self._received = b""
        self._files: deque[int] = deque()
        self._sending = threading.Lock()

    def send(self, name: str, value: object = None) -> None:
        """Send a command; that the process is gone shows when it is read from."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps({name: value}).encode() + b"\n")

    def messages(self, seconds: float) -> list[tuple[str, Any]] | None:
        """Wait some seconds for messages; `None` when the process is gone."""
        try:
            self._connection.settimeout(min(max(0.001, seconds), LONGEST_WAIT))
            data, files, _flags, _address = socket.recv_fds(self._connection, 1 << 16, 4)
        except TimeoutError:
            return []
        except OSError:
            return None
        self._files.extend(files)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [item for line in lines for item in json.loads(line).items()]

    def map_frames(self, number: int, *shape: int) -> SharedFrames:
        """Map the memory whose file descriptor came last."""
        file = self._files.popleft()
        try:
            memory = mmap.mmap(file, SLOTS * int(np.prod(shape)), access=mmap.ACCESS_READ)
        finally:
            os.close(file)
        return SharedFrames(number, np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape))

    def kill(self) -> None:
        """Kill it; `stop` must still follow."""
        self._process.kill()

    def stop(self, timeout: float = 0.0) -> int:
        """Wait for its end, kill it after the timeout; return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._process.kill()
        code = self._process.wait()
        with self._sending:
            self._connection.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        while self._files:
            os.close(self._files.popleft())
        return code
