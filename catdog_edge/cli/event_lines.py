"""Write events as lines to standard output and to a file."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

import click

from catdog_edge.camera.camera import State
from catdog_edge.errors import escaped
from catdog_edge.events.events import Event, state_to_json
from catdog_edge.events.sinks import JsonLines, WriteFailures
from catdog_edge.system.console import note

ROTATED_KEPT = 5
"""Old files of events that are kept beside the current one."""

UNREAD_TIMEOUT = 0.5
"""Seconds that a reader of standard output is waited for after a signal."""


class EventLines:
    """Writes events and states to standard output and to a file; from any thread.

    `out` receives human-readable lines, or JSON; `stop` is set when its reader, which may be slow,
    has exited. `file` receives JSON lines; a new one is started at `rotate` bytes.
    """

    def __init__(
        self, out: TextIO, stop: threading.Event, *, as_json: bool, file: Path | None, rotate: int
    ) -> None:
        self._out, self._stop, self._json = out, stop, as_json
        self._lock = threading.Lock()
        self._printing_since: float | None = None
        self._closed = threading.Event()
        self.unwritten: OSError | None = None
        self.failures = WriteFailures("lines")
        self.file: JsonLines | None = None
        if file is not None:
            self.file = JsonLines(file, rotate, ROTATED_KEPT)
        self._watcher = threading.Thread(target=self._watch, name="catdog-edge lines", daemon=True)
        self._watcher.start()

    def event(self, event: Event) -> None:
        """Write an event."""
        self._write(str(event), event.to_json())

    def state(self, source: str, state: State, reason: str) -> None:
        """Write a camera state."""
        note(f"catdog-edge: {escaped(f'{source}: {state}' + f': {reason}' * bool(reason))}")
        self._write(None, state_to_json(source, state, reason, time.time()))

    def close(self) -> None:
        """Close the file."""
        self._closed.set()
        self._watcher.join()
        if self.file is not None:
            self.file.close()

    def _watch(self) -> None:
        """Exit after a signal while a write to a stalled reader blocks."""
        while not self._closed.wait(UNREAD_TIMEOUT / 2):
            since = self._printing_since
            waited = 0.0 if since is None else time.monotonic() - since
            if self._stop.is_set() and waited > UNREAD_TIMEOUT:
                os._exit(128 + signal.SIGTERM)  # as a second signal would

    def _write(self, text: str | None, line: str) -> None:
        with self._lock:
            if self.file is not None:
                self.file.write(line)
            shown = line if self._json else text
            if shown is None:
                return
            self._printing_since = time.monotonic()
            try:
                self._out.flush()  # the failed data is still in the buffer
                click.echo(shown, file=self._out)
                self.unwritten = None
                self.failures.end_row()
            except BrokenPipeError:  # the reader has exited
                self._stop.set()
                with contextlib.suppress(OSError):  # unread data would be written again
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._out.fileno())
                    os.close(nowhere)
            except OSError as error:
                self.unwritten = error
                self.failures.add(Path("standard output"), error)
            finally:
                self._printing_since = None
