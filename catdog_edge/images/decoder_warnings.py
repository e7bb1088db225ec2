"""Capture what image decoders print on stderr: libjpeg and libtiff report damage only there.

OpenCV returns the pixels of a damaged JPEG or TIFF as if it were intact. So file descriptor 2 is
a temporary file while decoders run, in any number of threads; other output is forwarded
afterwards. (A process started meanwhile inherits that file as its stderr.)
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

_Result = TypeVar("_Result")

# A few bytes before a marker are padding, which some cameras write into every image.
_DAMAGE = re.compile(
    rb"Corrupt JPEG data(?!: \d extraneous bytes)|Premature end of JPEG|Inconsistent progression"
    rb"|TIFF_Error|TIFF_Warning (\w+Decode|JPEGLib)"
)
_DECODER = re.compile(
    rb"Corrupt JPEG|Premature end|Inconsistent prog|Invalid SOS|Warning: unknown JFIF|libpng "
    rb"|\[ ?[A-Z]+:\d+@|\s*$"
)


def decode_with_verdict(decode: Callable[[], _Result]) -> tuple[_Result, bool]:
    """Call a decoder without its messages; return its result, and whether it reported damage.

    If file descriptors cannot be redirected (Windows, a closed stderr), damage is not detected.
    """
    try:
        with _stderr.redirected() as printed:
            result = decode()
            suspicious = _DAMAGE.search(printed())
        if not suspicious:
            return result, False
        # Another thread's image may be the damaged one: decode again, alone.
        with _stderr.redirected(alone=True) as printed:
            result = decode()
            return result, _DAMAGE.search(printed()) is not None
    except _NotRedirectedError:
        return decode(), False


def write_stderr(text: str) -> None:
    """Write to the process's own stderr at once, also while decoders run in other threads."""
    with contextlib.suppress(OSError):
        _stderr.write(text.encode(errors="replace"))


class _NotRedirectedError(Exception):
    pass


class _Stderr:
    """File descriptor 2, redirected to a temporary file while it has users."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = self._waiting = 0
        self._alone = False
        self._file = self._original = -1

    @contextlib.contextmanager
    def redirected(self, alone: bool = False) -> Iterator[Callable[[], bytes]]:
        """Redirect within the block; yield a function that returns the output so far."""
        with self._changed:
            self._waiting += alone
            try:
                self._changed.wait_for(
                    lambda: self._users == 0 if alone else not (self._alone or self._waiting)
                )
            finally:
                self._waiting -= alone
            if self._users == 0:
                self._begin()
            self._users, self._alone = self._users + 1, alone
            start = os.fstat(self._file).st_size
        try:
            yield lambda: os.pread(self._file, 1 << 16, start)
        finally:
            with self._changed:
                self._users, self._alone = self._users - 1, False
                if self._users == 0:
                    self._end()
                self._changed.notify_all()

    def write(self, data: bytes) -> None:
        """Write to the original file descriptor 2."""
        with self._changed:
            os.write(self._original if self._users else 2, data)

    def _begin(self) -> None:
        if not hasattr(os, "pread"):
            raise _NotRedirectedError
        try:
            if self._file < 0:
                with tempfile.TemporaryFile() as file:
                    self._file = os.dup(file.fileno())
            self._original = os.dup(2)
            os.dup2(self._file, 2)
        except OSError as error:
            raise _NotRedirectedError from error

    def _end(self) -> None:
        os.dup2(self._original, 2)
        os.close(self._original)
        text = os.pread(self._file, 1 << 20, 0)
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        others = [line for line in text.splitlines(keepends=True) if not _DECODER.match(line)]
        if others:
            with contextlib.suppress(OSError):
                os.write(2, b"".join(others))

    def after_fork(self) -> None:
        """Restore stderr and state in a forked child, which has no other threads."""
        if self._users:
            os.dup2(self._original, 2)
        if self._file >= 0:
            os.close(self._file)
        self.__init__()  # type: ignore[misc]


_stderr = _Stderr()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _stderr.after_fork())
