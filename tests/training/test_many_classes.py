"""Three hundred classes: training and evaluation in the memory of a small set, bounded output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install [train]")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
pytestmark = pytest.mark.train

CLASSES = 300


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 class folders of four images, each class of a colour of its own."""
    folder = tmp_path_factory.mktemp("many")
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / "set" / f"kind {label:03}").mkdir(parents=True)
        colour = generator.integers(0, 256, 3)
        for number in range(4):
            image = np.clip(colour + generator.normal(0, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "set" / f"kind {label:03}" / f"{number}.png"), image)
    return folder


def run(folder: Path, *arguments: str) -> tuple[str, str, int]:
    """Standard output, standard error and the peak of resident memory in bytes."""
    program = (
        "import resource, sys; from catdog_edge.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, peak = done.stderr.splitlines()
    return done.stdout, "\n".join(said), int(peak.split()[1]) * 1024


@pytest.mark.slow
def test_three_hundred_classes_take_the_memory_of_a_small_set(many: Path, easy_set: Path) -> None:
    settings = (
        "--arch", "edge_cnn", "--epochs", "1", "--size", "32", "--precision", "float32",
    )  # fmt: skip
    _, _, small = run(many, "train", "--data", str(easy_set), "--name", "two", *settings)
    _, said, large = run(many, "train", "--data", "set", "--name", "many", *settings)
    assert large < small + 250e6
    assert max(map(len, said.splitlines())) < 400
    folder = many / "runs" / "many"
    for name in ("data.png", "confusion.png", "mistakes.png"):
        height, width = cv2.imread(str(folder / name)).shape[:2]
        assert max(height, width) < 2500, name
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["validation"]["confusion"] is None
    assert (folder / "summary.json").stat().st_size < 60_000

    text, _, peak = run(many, "eval", "--weights", "runs/many/best.pt")
    assert peak < small + 250e6
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) <= 100
    assert "of 300 classes with the lowest recall" in text
