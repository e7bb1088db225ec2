"""Images for runs of `catdog-edge predict --out`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.commands.bulk_runs import BROKEN


@pytest.fixture(scope="session")
def encoded() -> dict[str, bytes]:
    """23 small noisy images of two classes, and a file that is none."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(5)
    files = {BROKEN: b"\x89PNG\r\n\x1a\n and no more"}
    for number in range(23):
        colour = (0, 0, 200) if number % 3 else (200, 0, 0)
        image = np.clip(rng.normal(colour, 30, (40, 60, 3)), 0, 255).astype(np.uint8)
        files[f"{number:02}.png"] = cv2.imencode(".png", image)[1].tobytes()
    return files


@pytest.fixture
def album(encoded: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `shots` of these files; its parent is the current folder."""
    (tmp_path / "shots").mkdir()
    for name, data in encoded.items():
        (tmp_path / "shots" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shots"
