"""Parse camera addresses, and keep their credentials out of messages and names.

Passwords appear before the host (`rtsp://user:secret@host`), in the query (`?user=a&pwd=secret`)
and, with many cheap recorders, in the path (`/user=a_password=secret_channel=1.sdp`,
`/admin/secret/ch1`). All of them are hidden, also in an address with a typo.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, unquote

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*[^\s'\"<>:.,;)]")
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST_PORT = re.compile(r"(\[[\w:.%]+\]|[\w.~!$&'()*+,;=%-]+)(:\d{0,5})?")
"""Host and port by RFC 3986, with the letters of any language."""
_PLAIN_HOST = re.compile(r"([\w.-]+|\[[\w:.%]+\])(:\d{1,5})?(?=[/?#]|$)")
"""Host and port that are safe to show; other characters may belong to a password."""
_PLAIN = (
    "amp av avc axis bin cam camera cgi ch channel channels feed flv h high hls image index isapi "
    "jpeg jpg live low m main media mjpeg mjpg mp mpeg mpegts onvif play preview profile "
    "realmonitor rtsp sdp snapshot stream streaming streams sub trackid ts u ucast unicast video "
    "videomain videos videosub webcam"
)
_WORDS = frozenset(_PLAIN.split())
"""Usual words in the path of a camera; any other word may be a secret."""
_SHORTEST = 4
"""Secrets shorter than this are hidden inside addresses only, not wherever the letters occur."""


def is_url(source: str) -> bool:
    """Check whether a source is an address with a scheme rather than a file."""
    return _SCHEME.match(source) is not None


def split_userinfo(url: str) -> tuple[str, str, str]:
    """Split an address into its scheme with `://`, its userinfo without `@`, and the rest.

    RFC 3986 comes first: the userinfo ends at the last `@` of the authority, which ends at the
    first `/`, `?` or `#`. Only an authority that has no `@` and is no host and port is repaired:
    then the userinfo is `user:password` with an unescaped `/`, `?` or `#` in it, and goes on to
    the one `@` that a host follows. With several such places there is no userinfo; see `is_valid`.
    """
    match = _SCHEME.match(url)
    scheme = match.group() if match else ""
    rest = url[len(scheme) :]
    authority = _AUTHORITY.match(rest)
    assert authority is not None
    userinfo, at, _host = authority.group().rpartition("@")
    if not at and not _HOST_PORT.fullmatch(authority.group()):
        # Addresses of cameras have no fragment.
        ends = [at.start() for at in re.finditer(f"@(?={_PLAIN_HOST.pattern})(?![^/?]*#)", rest)]
        found = rest[: ends[0]] if len(ends) == 1 else ""
        if ":" in found and not re.search(r"\?.*=", found):  # that is a query
            userinfo, at = found, "@"
    return scheme, userinfo, rest[len(userinfo) + len(at) :]


def is_valid(url: str) -> bool:
    """Check whether an address, as given or repaired, has a host and a numeric port."""
    authority = _AUTHORITY.match(split_userinfo(url)[2])
    return authority is not None and _HOST_PORT.fullmatch(authority.group()) is not None


def host(url: str) -> str:
    """Return the host of an address, without port; empty if it may be part of a password."""
    match = _PLAIN_HOST.match(split_userinfo(url)[2])
    return match.group(1) if match else ""


def masked(url: str) -> str:
    """Return an address without secrets: scheme, host, port, and a path of well-known words.

    `rtsp://***@door:554/stream`. Queries, other paths and unusual hosts are hidden. Of a text
    that may be an address with a typo, everything before an `@` and after `?`, `=`, `;` or `#`
    is hidden.
    """
    if not is_url(url):
        url = re.sub(r"^.*@", f"{HIDDEN}@", url, flags=re.DOTALL)
        return re.sub(r"([?=;#]).*", rf"\1{HIDDEN}", url, flags=re.DOTALL)
    scheme, userinfo, rest = split_userinfo(url)
    scheme += f"{HIDDEN}@" if userinfo else ""
    match = _PLAIN_HOST.match(rest)
    if match is None:
        return scheme + HIDDEN
    path, *query = re.split(r"[?#]", rest[match.end() :], maxsplit=1)
    if not _is_plain(path):
        return f"{scheme}{match.group()}/{HIDDEN}"
    return f"{scheme}{match.group()}{path}{'?' + HIDDEN if query else ''}"


def _is_plain(path: str) -> bool:
    """Check whether a path consists of well-known words and short numbers."""
    if re.search(r"[^A-Za-z0-9_./-]|\d{4}", path):
        return False
    return all(word in _WORDS for word in re.findall(r"[a-z]+", path.lower()))


def ffmpeg_url(url: str) -> str:
    """Return an address for FFmpeg: scheme in lower case, userinfo percent-encoded."""
    scheme, userinfo, rest = split_userinfo(url)
    if not userinfo:
        return scheme.lower() + rest
    lone_percent = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", userinfo)
    return f"{scheme.lower()}{quote(lone_percent, safe='%!$&()*+,;=-._~:' + chr(39))}@{rest}"


class Mask:
    """Masks the secrets of one source in any text, including messages of libraries.

    `Mask(url)(text)` replaces the address, its userinfo and its password, plain, decoded and
    as the Base64 of a login; then every other address in the text is shown as `masked`.
    """

    def __init__(self, source: str) -> None:
        self._url = source if is_url(source) else ""
        self._user = ""
        found: set[str] = set()
        if self._url:
            _scheme, userinfo, rest = split_userinfo(source)
            self._user, _, password = userinfo.partition(":")
            found = {userinfo, password, base64.b64encode(userinfo.encode()).decode()}
            found.add(base64.b64encode(unquote(userinfo).encode()).decode())
            address, _, query = rest.partition("?")
            found |= {query, *re.findall(r"=([^=&;#]+)", query)}
            found |= set(re.findall(r"=([^=&;,#_/]+)", address))
            place, _, path = address.partition("/")
            if not _PLAIN_HOST.match(rest):
                found.add(place)
            if not _is_plain(path):
                found.add(path)
        found |= {unquote(text) for text in found}
        secrets = (text for text in found if len(text) >= _SHORTEST)
        self._secrets = sorted(secrets, key=len, reverse=True)

    def holds(self, text: str) -> bool:
        """Check whether a text contains the address, or is one of its secrets."""
        return bool(self._url) and (self._url in text or text in self._secrets)

    def __call__(self, text: str) -> str:
        """Replace every secret in a text by `***`."""
        if self._url:
            text = text.replace(self._url, masked(self._url))
        text = _URL.sub(lambda match: masked(match.group()), text)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if len(self._user) >= _SHORTEST:
            text = re.sub(rf"\b{re.escape(self._user)}\b", HIDDEN, text)
        return text
