"""Logins of cameras behind HTTP: Basic, Digest and redirects."""

from __future__ import annotations

import base64
import hashlib
import http.server
import re

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras.http_answers import PARTS, Answer, opened, serving, streaming, taken

from catdog_edge.camera.http_stream import StreamError

USER, PASSWORD = "porter", "s3cret:/@x"


def with_login(url: str, password: str = "s3cret:%2F%40x") -> str:
    return url.replace("://", f"://{USER}:{password}@") + "/video"


def digest_is_right(header: str, method: str, algorithm: str) -> bool:
    if not header.startswith("Digest "):
        return False
    fields = {
        k: quoted or bare for k, quoted, bare in re.findall(r'(\w+)=(?:"(.*?)"|(\w+))', header)
    }

    def digest(text: str) -> str:
        return hashlib.new(algorithm.replace("-", "").lower(), text.encode()).hexdigest()

    secret = digest(f"{USER}:a camera:{PASSWORD}")
    middle = fields["nonce"]
    if "qop" in fields:
        middle += f":{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
    return fields["response"] == digest(f"{secret}:{middle}:{digest(method + ':' + fields['uri'])}")


@pytest.mark.parametrize(
    ("challenges", "scheme", "algorithm"),
    [
        (['Basic realm="a camera"'], "Basic", ""),
        (['Digest realm="a camera", nonce="ab,c"'], "Digest", "MD5"),
        (['Digest realm="a camera", qop="auth-int, auth", nonce="abc"'], "Digest", "MD5"),
        (['Digest realm="a camera", algorithm=SHA-256, nonce="1", qop=auth'], "Digest", "SHA-256"),
        (['Basic realm="a camera"', 'Digest realm="a camera", nonce="1"'], "Digest", "MD5"),
        (['Basic realm="a camera", Digest realm="a camera", nonce="1"'], "Digest", "MD5"),
        (
            ['Digest realm="a", algorithm=X, nonce="1"', 'Digest realm="a camera", nonce="1"'],
            "Digest",
            "MD5",
        ),
    ],
)
def test_a_login_is_sent_as_it_is_asked_for(
    challenges: list[str], scheme: str, algorithm: str
) -> None:
    logins: list[str | None] = []
    play = streaming(*PARTS["as it should be"], 0.01)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        login = handler.headers.get("Authorization")
        logins.append(login)
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        good = login and (login == basic or digest_is_right(login, "GET", algorithm or "MD5"))
        if good:
            play(handler)
            return
        handler.send_response(401)
        for challenge in challenges:
            handler.send_header("WWW-Authenticate", challenge)
        handler.end_headers()

    with serving(answer) as url:
        assert taken(opened(with_login(url)), 2) == [0, 1]
        assert [login and login.split()[0] for login in logins] == [None, scheme]
        with pytest.raises(StreamError, match=r"requires a valid login \(error 401\)"):
            opened(with_login(url, "wrong"))
        with pytest.raises(StreamError, match="error 401"):
            opened(url)


def test_an_unknown_digest_is_no_reason_to_send_the_login_in_clear() -> None:
    logins: list[str | None] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        logins.append(handler.headers.get("Authorization"))
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", 'Digest realm="a", algorithm=X, nonce="1"')
        handler.send_header("WWW-Authenticate", 'Basic realm="a"')
        handler.end_headers()

    with serving(answer) as url, pytest.raises(StreamError):
        opened(with_login(url))
    assert logins == [None]


def test_a_redirect_is_followed_and_the_login_stays_with_its_server() -> None:
    logins: dict[str, list[str | None]] = {"own": [], "other": []}
    play = streaming(*PARTS["as it should be"], 0.01)

    def guarded(where: str) -> Answer:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            if handler.path in targets:
                handler.send_response(302)
                handler.send_header("Location", targets[handler.path])
                handler.end_headers()
                return
            logins[where].append(handler.headers.get("Authorization"))
            if logins[where][-1]:
                play(handler)
                return
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="a camera"')
            handler.end_headers()

        return answer

    targets = {"/video": "/moved"}
    with serving(guarded("other")) as other, serving(guarded("own")) as own:
        assert taken(opened(with_login(own)), 2) == [0, 1]
        assert [login is None for login in logins["own"]] == [True, False]
        targets["/video"] = f"{other}/video2"
        with pytest.raises(StreamError, match="error 401"):
            opened(with_login(own))
        assert logins["other"] == [None]
