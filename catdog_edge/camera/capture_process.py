"""One process of `catdog_edge.camera.capture_worker`, seen from the program that started it.

Knows how to start it, talk to it, map its memory and end it; what to say is up to
`catdog_edge.camera.reader`.
"""

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
from typing import Any

import numpy as np

from catdog_edge.camera.capture_worker import FFMPEG_OPTIONS, SLOTS
from catdog_edge.camera.credentials import Mask
from catdog_edge.camera.live_source import Image
from catdog_edge.system.child import child_command, child_environment

_LONGEST_WAIT = 3600.0
"""Seconds; the system refuses to wait for as long as a caller may ask."""


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
    """A running process and the line to it.

    Args:
        source: What it will be told to open; a variable that holds it, or its password, is not
            handed on, since whoever may look at a process sees its environment.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, source: str = "") -> None:
        self.line, theirs = socket.socketpair()
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

    def tell(self, name: str, value: object = None) -> None:
        """Send a command; a process that is gone is noticed when it is read from."""
        with self._sending, contextlib.suppress(OSError):
            self.line.sendall(json.dumps({name: value}).encode() + b"\n")

    def messages(self, seconds: float) -> list[tuple[str, Any]] | None:
        """What it tells within some seconds; `None` when it is gone."""
        try:
            self.line.settimeout(min(max(0.001, seconds), _LONGEST_WAIT))
            data, files, _flags, _address = socket.recv_fds(self.line, 1 << 16, 4)
        except TimeoutError:
            return []
        except OSError:
            return None
        self._files.extend(files)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [item for line in lines for item in json.loads(line).items()]

    def memory(self, number: int, *shape: int) -> SharedFrames:
        """Map the memory whose file descriptor came last."""
        file = self._files.popleft()
        try:
            memory = mmap.mmap(file, SLOTS * int(np.prod(shape)), access=mmap.ACCESS_READ)
        finally:
            os.close(file)
        return SharedFrames(number, np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape))

    def kill(self) -> None:
        """Kill it; `end` must still follow."""
        self._process.kill()

    def end(self, patience: float = 0.0) -> int:
        """Wait for its end, kill it if that takes too long; its exit code."""
        try:
            code = self._process.wait(patience) if patience else None
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            self._process.kill()
            code = self._process.wait()
        with self._sending:
            self.line.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        while self._files:
            os.close(self._files.popleft())
        return code
