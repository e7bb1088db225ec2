"""A set larger than memory can be trained on: what is decoded stays in the cache file.

A process of its own opens a set, decodes it into the cache and goes through several epochs of
batches. The pages of the memory-mapped cache are the system's, to take back whenever memory is
short; what a process holds for itself is its anonymous memory (`RssAnon`), and that must not
grow with the set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")

from catdog_edge.spec import squash
from catdog_edge.training.data.dataset import SPLITS
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.engine.batches import loader as batching

STATUS = Path("/proc/self/status")

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.skipif(
        not STATUS.is_file() or "RssAnon" not in STATUS.read_text(),
        reason="anonymous memory is read from /proc, which this system has not",
    ),
]

SIZE = 224
PICTURES = 1_600
BATCH = 20
EPOCHS = 2

PICTURE = SIZE * SIZE * 3
"""Bytes of a picture as the cache keeps it."""

CACHE = PICTURES * PICTURE
"""Bytes of all of them: 241 MB."""

DECODING = 2 * 32
"""Pictures that `reading.decoded` has in hand: a chunk that is waited for, and the next one."""

TRAINING = BATCH * 2 * (batching.PREFETCH + 2)
"""Pictures in batches: those ahead, the one in preparation and the one in use, each with the
copy that it was changed from."""

LIMIT = (DECODING + TRAINING) * PICTURE + PICTURES * 1024 + 24 * 2**20
"""Bytes that may be added: the pictures in hand, 1 KiB a file for names and digests, and 24 MB
for what does not depend on the set: stacks, buffers of files, OpenCV's and malloc's own."""


class Anonymous:
    """The largest anonymous memory of this process, looked at every few milliseconds."""

    def __enter__(self) -> Anonymous:
        self.start = self.most = self.now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.most = max(self.most, self.now())

    @staticmethod
    def now() -> int:
        """Bytes."""
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def _look(self) -> None:
        while not self._over.wait(0.003):
            self.most = max(self.most, self.now())


def child(folder: str, way: str) -> dict[str, int]:
    """The data path of a training run; `loaded` holds the pictures in memory instead."""
    torch.set_num_threads(1)
    steps = squash(SIZE, SIZE)
    found = {"pictures": 0, "sum": 0, "mapped": 0}
    with Anonymous() as memory:
        dataset = open_dataset(folder, steps=steps)
        sets = {split: pixels(dataset, split, steps)[:2] for split in SPLITS}
        if way == "loaded":
            sets = {split: (np.array(frames), truth) for split, (frames, truth) in sets.items()}
        found["mapped"] = sum(frames.nbytes for frames, _ in sets.values())
        for split, (frames, truth) in sets.items():
            loader = batching.BatchLoader(frames, truth, BATCH, policy="default", seed=0)
            for epoch in range(EPOCHS):
                for inputs, labels, _ in loader.epoch(epoch):
                    if split == "train" and not found["pictures"]:
                        # A slow step: batches must wait for it, not pile up behind it.
                        time.sleep(1.0)
                    found["pictures"] += len(labels)
                    found["sum"] += int(inputs[:, ::64, ::64].sum())
    return {**found, "grown": memory.most - memory.start}


def run(folder: Path, cache: Path, way: str) -> dict[str, int]:
    environment = {**os.environ, "CATDOG_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, __file__, str(folder), way],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, int] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files that decode to large pictures, each another one."""
    import cv2

    folder = tmp_path_factory.mktemp("many") / "set"
    rng = np.random.default_rng(3)
    for label in ("left", "right"):
        (folder / label).mkdir(parents=True)
        for number in range(PICTURES // 2):
            picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / label / f"{number}.jpg"), picture)
    return folder


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(many: Path, tmp_path: Path) -> None:
    assert CACHE > 3 * LIMIT, "the set is too small for this to say anything"
    cache = tmp_path / "cache"
    first = run(many, cache, "mapped")
    assert first["mapped"] == CACHE
    assert first["pictures"] == EPOCHS * PICTURES
    assert first["grown"] < LIMIT, f"decoding: {first}, limit {LIMIT}"
    again = run(many, cache, "mapped")
    assert again["grown"] < LIMIT, f"from the cache: {again}, limit {LIMIT}"
    # The counter-proof: held in memory, the same pictures are seen by the same instrument.
    held = run(many, cache, "loaded")
    assert held["grown"] > CACHE
    assert first["sum"] == again["sum"] == held["sum"]


if __name__ == "__main__":
    print(json.dumps(child(*sys.argv[1:])))
