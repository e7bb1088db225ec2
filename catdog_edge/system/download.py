"""Limit how long a download waits for its server, and make one error of what may fail."""

from __future__ import annotations

import contextlib
import socket
import tarfile
from collections.abc import Callable, Iterator

from catdog_edge.errors import CatdogError, first_line

TIMEOUT = 30.0  # seconds without a response after which a download fails


@contextlib.contextmanager
def guarded_download(make_error: Callable[[str], CatdogError]) -> Iterator[None]:
    """Limit the wait for a response inside the block, and raise `make_error(reason)` if it fails.

    Examples:
        >>> with guarded_download(lambda reason: DataError(f"no pets: {reason}")):
        ...     download_and_extract_archive(url, folder)
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except (OSError, RuntimeError, EOFError, ValueError, tarfile.TarError) as error:
        # URLError is an OSError; for a wrong checksum torch and torchvision raise RuntimeError.
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise make_error(first_line(reason)) from error
    finally:
        socket.setdefaulttimeout(before)
