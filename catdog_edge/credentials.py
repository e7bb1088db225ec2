"""Keeps what opens a camera out of everything that a person or a program may read.

Knows nothing of cameras but the form of their addresses. Passwords stand before the host
(`rtsp://user:secret@host`), in the query (`?user=a&pwd=secret`) and, with many cheap
recorders, in the path (`/user=a_password=secret_channel=1.sdp`); each of them is covered.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, unquote

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*")
_SHORTEST = 4
"""Shorter secrets are hidden where they stand in an address, not wherever those letters are."""


def is_url(source: str) -> bool:
    """Whether a source is an address with a scheme, not a file."""
    return _SCHEME.match(source) is not None


def split_user(url: str) -> tuple[str, str, str]:
    """Cut an address into scheme with `://`, user part without `@`, and the rest.

    The user part goes up to the last `@` before a query: a password that holds an unescaped
    `/` or `@` makes no valid address, but it is a secret all the same.
    """
    match = _SCHEME.match(url)
    scheme = match.group() if match else ""
    rest = url[len(scheme) :]
    query = rest.find("?")
    at = rest.rfind("@", 0, query if query >= 0 else len(rest))
    if at < 0 and query >= 0 and "/" not in rest[:query]:
        at = rest.rfind("@")  # the password itself holds the question mark
    return (scheme, rest[:at], rest[at + 1 :]) if at >= 0 else (scheme, "", rest)


def masked(url: str) -> str:
    """An address as it may be shown: scheme, host, port, and the part of the path that is plain.

    `rtsp://***@door:554/stream`. A query, and a path from its first `=`, `@` or `%` on, are
    hidden whole.
    """
    scheme, user, rest = split_user(url)
    host, slash, path = rest.partition("/")
    host, mark, _query = host.partition("?")
    plain = re.split(r"[?#]", path, maxsplit=1)[0]
    if mark or plain != path or re.search(r"[=@%:]", plain):
        kept = "" if mark or re.search(r"[=@%:]", plain) else plain
        path = f"{kept}?{HIDDEN}" if kept else HIDDEN
        slash = "/"
    return f"{scheme}{HIDDEN + '@' if user else ''}{host}{slash}{path}"


def openable(url: str) -> str:
    """The address as FFmpeg wants it: characters that a password may not hold are escaped."""
    scheme, user, rest = split_user(url)
    if not user:
        return url
    name, colon, password = user.partition(":")
    return f"{scheme}{_escaped(name)}{colon}{_escaped(password)}@{rest}"


def _escaped(text: str) -> str:
    lone_percent = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    return quote(lone_percent, safe="%!$&'()*+,;=-._~")


class Mask:
    """Hides the secrets of one source in any text, whoever wrote the text.

    `Mask(url)(text)` replaces the address, its user part and its password, plain, decoded
    and as the Base64 of a login; then every other address in the text is shown as `masked`.
    """

    def __init__(self, source: str) -> None:
        self._url = source if is_url(source) else ""
        self._name = ""
        found: set[str] = set()
        if self._url:
            _scheme, user, rest = split_user(source)
            self._name, _, password = user.partition(":")
            found = {user, password, base64.b64encode(user.encode()).decode()}
            found.add(base64.b64encode(unquote(user).encode()).decode())
            address, _, query = rest.partition("?")
            found |= {query, *re.findall(r"=([^=&;#]+)", query)}
            path = address.partition("/")[2]
            if "=" in path:
                found |= {path, *re.findall(r"=([^=&;_/]+)", path)}
        found |= {unquote(text) for text in found}
        self._secrets = sorted(
            (text for text in found if len(text) >= _SHORTEST), key=len, reverse=True
        )

    def __call__(self, text: str) -> str:
        """The text with every secret replaced by `***`."""
        if self._url:
            text = text.replace(self._url, masked(self._url))
        text = _URL.sub(lambda match: masked(match.group()), text)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if len(self._name) >= _SHORTEST:
            text = re.sub(rf"\b{re.escape(self._name)}\b", HIDDEN, text)
        return text
