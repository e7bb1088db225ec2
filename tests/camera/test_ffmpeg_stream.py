"""Streams that FFmpeg reads."""

from __future__ import annotations

import http.server

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras.http_answers import head, serving
from support.cameras.numbered_frames import numbered

from catdog_edge import Camera


def test_other_video_over_http_is_read_by_ffmpeg(tmp_path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 180))
    for number in range(30):
        writer.write(numbered(number))
    writer.release()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        head(handler, Content_Type="video/x-msvideo", Content_Length=path.stat().st_size)
        handler.wfile.write(path.read_bytes())

    with serving(answer) as url, Camera(url + "/clip.avi", retries=0) as camera:
        frame = camera.read(timeout=20)
    assert frame is not None
    assert frame.image.shape == (180, 320, 3)
