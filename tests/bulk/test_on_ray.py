"""`predict --engine ray` on a real cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

cv2 = pytest.importorskip("cv2")
ray = pytest.importorskip("ray", reason="needs the extra [ray]")
pytest.importorskip("ray.data")

from catdog_edge.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own

IMAGES = 40


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without a core, and two nodes with one each."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    head = {"num_cpus": 0, "object_store_memory": memory, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=memory)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def predict(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["predict", "shots", "--tiles", "--part", "2", *arguments])


def test_a_node_is_lost_and_every_image_has_one_row(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shots").mkdir()
    rng = np.random.default_rng(2)
    for number in range(IMAGES - 1):
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(f"shots/{number:03}.jpg", cv2.resize(image, (512, 384)))
    Path("shots/broken.jpg").write_bytes(b"\xff\xd8\xff")
    lost: list[int] = []

    def lose_a_node() -> None:
        while len(found := list(Path("ray").glob("part-*"))) < 4:
            time.sleep(0.02)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        lost.append(len(found))

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    done = predict("--out", "ray", "--engine", "ray", "--address", cluster.address, "--json")
    thread.join(60)
    assert done.exit_code == 1, done.output  # for the broken one
    assert len(lost) == 1
    assert lost[0] < IMAGES / 2
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert json.loads(done.stdout)["images"] == IMAGES
    assert done.stderr.count("broken.jpg") == 1
    manifest = json.loads(Path("ray/_manifest.json").read_text())
    assert manifest["complete"]
    predict("--out", "local")
    files = {file.name for file in Path("local").glob("part-*")}
    assert {file.name for file in Path("ray").glob("part-*")} == files
    for name in files:
        assert Path("ray", name).read_bytes() == Path("local", name).read_bytes()
    assert "0 to do" in predict("--out", "ray").stderr  # one engine takes over from the other
