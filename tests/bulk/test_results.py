"""The folder of results."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands.bulk_runs import predict

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


def test_a_part_that_holds_other_images_is_found(album: Path) -> None:
    predict("shots", "--out", "out", "--part", "10")
    manifest, part = Path("out/_manifest.json"), Path("out/part-000001.jsonl")
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    whole = part.read_bytes()
    part.write_bytes(b"\n".join(whole.split(b"\n")[1:]))
    done = predict("shots", "--out", "out", "--part", "10")
    assert done.exit_code == 1
    assert "part-000001.jsonl in out does not hold its images; delete it" in done.stderr
    part.unlink()
    predict("shots", "--out", "out", "--part", "10")
    assert part.read_bytes() == whole
    manifest.unlink()
    assert "parts and no _manifest.json" in predict("shots", "--out", "out").stderr
