"""Keeps what opens a camera out of everything that a person or a program may read.

Knows nothing of cameras but the form of their addresses. Passwords stand before the host
(`rtsp://user:secret@host`), in the query (`?user=a&pwd=secret`) and, with many cheap
recorders, in the path (`/user=a_password=secret_channel=1.sdp`, `/admin/secret/ch1`); each of
them is covered, also where the address has a slip in it.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, unquote

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*[^\s'\"<>:.,;)]")
_HOST = re.compile(r"([\w.-]+|\[[\w:.%]+\])(:\d{1,5})?(?=[/?#]|$)")
"""What may be a host, with its port; all else in its place may be a part of a password."""
_PLAIN = (
    "amp av avc axis bin cam camera cgi ch channel channels feed flv h high hls image index isapi "
    "jpeg jpg live low m main media mjpeg mjpg mp mpeg mpegts onvif play preview profile "
    "realmonitor rtsp sdp stream streaming streams sub trackid ts u ucast unicast video videomain "
    "videos videosub webcam"
)
_WORDS = frozenset(_PLAIN.split())
"""What the path of a camera is usually made of; any other word in it may be a secret."""
_SHORTEST = 4
"""Shorter secrets are hidden where they stand in an address, not wherever those letters are."""


def is_url(source: str) -> bool:
    """Whether a source is an address with a scheme, not a file."""
    return _SCHEME.match(source) is not None


def split_user(url: str) -> tuple[str, str, str]:
    """Cut an address into scheme with `://`, user part without `@`, and the rest.

    The user part goes up to the last `@` before a query that a host can follow: a password
    that holds an unescaped `/`, `@` or `?` makes no valid address, but it is a secret all the
    same.
    """
    match = _SCHEME.match(url)
    scheme = match.group() if match else ""
    rest = url[len(scheme) :]
    before, mark, after = rest.partition("?")
    places = [found.start() for found in re.finditer("@", before)]
    at = next((place for place in reversed(places) if _HOST.match(rest, place + 1)), -1)
    if at < 0 and places:
        at = places[-1]
    inside, sign, _tail = after.rpartition("@")
    if mark and sign:
        # Either an `@` in the query, or a question mark in the password.
        last = len(before) + 1 + len(inside)
        has_host = bool(places) or _HOST.match(before) is not None
        if _HOST.match(rest, last + 1) and not (has_host and "=" in inside):
            at = last
    return (scheme, rest[:at], rest[at + 1 :]) if at >= 0 else (scheme, "", rest)


def host(url: str) -> str:
    """The host of an address, without port; empty where what stands there is no host."""
    match = _HOST.match(split_user(url)[2])
    return match.group(1) if match else ""


def masked(url: str) -> str:
    """An address as it may be shown: scheme, host, port, and a path of well-known words.

    `rtsp://***@door:554/stream`. A query, any other path, and what stands in the place of the
    host but is none are hidden whole. Of a text that is no address, but may have been meant as
    one, all is hidden before an `@` and after `?`, `=`, `;` or `#`.
    """
    if not is_url(url):
        url = re.sub(r"^.*@", f"{HIDDEN}@", url, flags=re.DOTALL)
        return re.sub(r"([?=;#]).*", rf"\1{HIDDEN}", url, flags=re.DOTALL)
    scheme, user, rest = split_user(url)
    scheme += f"{HIDDEN}@" if user else ""
    match = _HOST.match(rest)
    if match is None:
        return scheme + HIDDEN
    path, *query = re.split(r"[?#]", rest[match.end() :], maxsplit=1)
    if not _is_plain(path):
        return f"{scheme}{match.group()}/{HIDDEN}"
    return f"{scheme}{match.group()}{path}{'?' + HIDDEN if query else ''}"


def _is_plain(path: str) -> bool:
    """Whether a path is made of well-known words and short numbers alone."""
    if re.search(r"[^A-Za-z0-9_./-]|\d{4}", path):
        return False
    return all(word in _WORDS for word in re.findall(r"[a-z]+", path.lower()))


def openable(url: str) -> str:
    """The address as FFmpeg wants it.

    The scheme is in lower case, and characters that a password may not hold are escaped.
    """
    scheme, user, rest = split_user(url)
    scheme = scheme.lower()
    if not user:
        return scheme + rest
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
            found |= set(re.findall(r"=([^=&;,#_/]+)", address))
            place, _, path = address.partition("/")
            if not _HOST.match(rest):
                found.add(place)
            if not _is_plain(path):
                found.add(path)
        found |= {unquote(text) for text in found}
        self._secrets = sorted(
            (text for text in found if len(text) >= _SHORTEST), key=len, reverse=True
        )

    def holds(self, text: str) -> bool:
        """Whether a text holds the address, or is one of its secrets."""
        return bool(self._url) and (self._url in text or text in self._secrets)

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
