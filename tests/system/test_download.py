"""Downloads that fail: one error with the reason, and the process's timeout as it was."""

from __future__ import annotations

import socket
import tarfile
from urllib.error import URLError

import pytest

from catdog_edge.errors import DataError
from catdog_edge.system.download import guarded_download


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(ConnectionRefusedError(111, "Connection refused")), "refused"),
        (OSError(28, "No space left on device"), "^no pets: No space left on device$"),
        (RuntimeError('invalid hash value\n(expected "0")'), "^no pets: invalid hash value$"),
        (tarfile.ReadError("not a gzip file"), "not a gzip file"),
    ],
)
def test_the_error_has_the_reason_in_one_line(error: Exception, reason: str) -> None:
    def fail() -> None:
        with guarded_download(lambda reason: DataError(f"no pets: {reason}")):
            assert socket.getdefaulttimeout() == 30
            raise error

    with pytest.raises(DataError, match=reason):
        fail()
    assert socket.getdefaulttimeout() is None
