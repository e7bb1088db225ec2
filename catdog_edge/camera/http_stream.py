"""JPEGs over HTTP: MJPEG streams and snapshot addresses, as cameras serve them.

Data is recognised by its content: cameras send wrong content types, boundaries and lengths.
Other video over HTTP (HLS, MPEG-TS, MP4, ...) is left to FFmpeg.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import select
import socket
import ssl
import time
import urllib.request
from email.message import Message
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from catdog_edge.camera.credentials import split_userinfo
from catdog_edge.camera.mjpeg import LARGEST, READ_SIZE, JpegSplitter

LONE_PICTURE = 1.0
"""Seconds without data after a picture that is none of several parts: no more will come."""


class StreamError(Exception):
    """A source cannot be opened, or the stream is over; the message is the reason.

    `detail` is the related output of a library.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class NotJpegError(StreamError):
    """The address sends no JPEGs, but maybe other video; the message names its content."""


class HttpStream:
    """An address that sends JPEGs: many in one response, or one in each (a snapshot address).

    The login is sent only to the server of the address, also after a redirect, and in clear text
    (Basic) only if the server offers nothing else. Certificates are not verified: cameras use
    self-signed ones. `interval`: seconds between two snapshots; 0 for other streams.
    """

    def __init__(self, address: str, timeout: float, fps: float) -> None:
        scheme, userinfo, rest = split_userinfo(address)
        self._request = urllib.request.Request(
            scheme.lower() + rest, headers={"User-Agent": "catdog-edge", "Accept": "*/*"}
        )
        # As with FFmpeg, and for the same reason.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _Login(self._request.full_url, userinfo)
        )
        self._timeout, self._fps = timeout, fps
        self.interval = 0.0
        self._head, self._ended, self._is_jpeg = b"", False, True
        self._open()

    def read(self) -> list[bytes]:
        """Wait for data; return the images completed by it, as empty bytes if truncated."""
        if self._ended:
            time.sleep(max(0.0, self._asked + self.interval - time.monotonic()))
            self._open()
        data, self._head = self._head or self._receive(), b""
        self._ended = not data
        if self._is_jpeg:
            pictures = self._splitter.feed(data) if data else self._splitter.end()
        else:
            self._body += data
            pictures = [] if data else [bytes(self._body)]
        if len(self._body) > LARGEST:
            raise StreamError("it sends an image without an end")
        self._count += len(pictures)
        if self._count > 1:
            self.interval = 0.0
        if self._ended:
            if self._count != 1:
                raise StreamError("the stream ended" if self._count else "it sends no image")
            self.interval = 1 / self._fps
        return pictures

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def _open(self) -> None:
        self._asked = time.monotonic()
        self._response = self._connect()
        self._splitter, self._body = JpegSplitter(), bytearray()
        self._count, self._ended, self._head = 0, False, b""
        kind = self._response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._is_multipart = kind.startswith("multipart/")
        self._is_jpeg = True
        if self._is_multipart:
            self._response.length = None  # some state one, which cannot be right
            return
        while len(self._head) < 3 and (data := self._receive()):
            self._head = (self._head + data).lstrip()
        if not self._head.startswith((b"\xff\xd8\xff", b"--")):
            self._is_jpeg = False
            if not kind.startswith("image/"):
                self.close()
                what = kind or "a page"
                raise NotJpegError(f"it answers with {what}, in which there is no video")

    def _connect(self) -> Any:
        try:
            return self._opener.open(self._request, timeout=self._timeout)
        except HTTPError as error:
            with error:
                raise StreamError(http_reason(error.code)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, OSError):
                raise StreamError(network_reason(cause, self._timeout)) from None
            raise NotJpegError("it does not speak HTTP") from None

    def _receive(self) -> bytes:
        response = self._response
        try:
            if response.isclosed():
                return b""
            if self._count and not self._is_multipart:
                wait = min(LONE_PICTURE, 1 / self._fps)
                if not select.select([response], [], [], wait)[0]:
                    return b""
            return bytes(response.read1(READ_SIZE))
        except OSError as error:
            raise StreamError(network_reason(error, self._timeout)) from None
        except (http.client.HTTPException, ValueError):
            raise StreamError("the connection was cut off") from None


def http_reason(code: int) -> str:
    """Return the human-readable meaning of an HTTP or RTSP status."""
    known = {401: "requires a valid login", 403: "forbids it", 404: "has no such path"}
    other = "refuses" if code < 500 else "is busy" if code == 503 else "has failed"
    return f"the server {known.get(code, other)} (error {code})"


def network_reason(error: OSError, timeout: float) -> str:
    """Return the human-readable meaning of a socket error."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, socket.gaierror):
        return "no such host is known"
    if isinstance(error, ssl.SSLError):
        return "the server does not speak TLS as it should"
    return (error.strerror or "the connection failed").lower()


class _Login(urllib.request.BaseHandler):
    """Answers a 401 of the address's own server: with Digest (RFC 7616) if offered, else Basic."""

    def __init__(self, url: str, userinfo: str) -> None:
        user, _, password = userinfo.partition(":")
        self._login = (unquote(user), unquote(password)) if userinfo else None
        self._origin = _origin(url)

    def http_error_401(self, request: urllib.request.Request, answer: Any, *_more: Any) -> Any:
        """Repeat the request with a login; `None` if there is none."""
        own = self._login is not None and _origin(request.full_url) == self._origin
        if not own or request.has_header("Authorization"):
            return None
        authorization = self._authorization(answer.headers, request.selector)
        if authorization is None:
            return None
        answer.close()
        again = urllib.request.Request(request.full_url, headers=dict(request.headers))
        again.add_unredirected_header("Authorization", authorization)
        return self.parent.open(again, timeout=request.timeout)

    def _authorization(self, headers: Message, path: str) -> str | None:
        assert self._login is not None
        offered = ", ".join(headers.get_all("WWW-Authenticate", []))
        for challenge in re.split(r"\bDigest\s+", offered, flags=re.IGNORECASE)[1:]:
            items = urllib.request.parse_http_list(challenge)
            fields = urllib.request.parse_keqv_list([item for item in items if "=" in item])
            if "realm" in fields and (answer := _digest(fields, *self._login, path)):
                return answer
        if re.search(r"\bDigest\b", offered, re.IGNORECASE) or "basic" not in offered.lower():
            return None
        return "Basic " + base64.b64encode(":".join(self._login).encode()).decode()


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _digest(fields: dict[str, str], user: str, password: str, path: str) -> str | None:
    """Return the header for a Digest challenge; `None` if its algorithm is unknown."""
    algorithm = fields.get("algorithm", "MD5")
    name = algorithm.lower().removesuffix("-sess").replace("-", "")
    if name not in ("md5", "sha256"):
        return None

    def digest(*parts: str) -> str:
        return hashlib.new(name, ":".join(parts).encode()).hexdigest()

    realm, nonce, client_nonce = fields["realm"], fields.get("nonce", ""), os.urandom(8).hex()
    secret = digest(user, realm, password)
    if algorithm.lower().endswith("-sess"):
        secret = digest(secret, nonce, client_nonce)
    header = f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{path}"'
    counted = [nonce]
    if "auth" in re.split(r"[,\s]+", fields.get("qop", "")):
        counted += ["00000001", client_nonce, "auth"]
        header += f', qop=auth, nc=00000001, cnonce="{client_nonce}"'
    header += f', response="{digest(secret, *counted, digest("GET", path))}"'
    header += f", algorithm={algorithm}" if "algorithm" in fields else ""
    return header + (f', opaque="{fields["opaque"]}"' if "opaque" in fields else "")
