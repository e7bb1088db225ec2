"""The model that a worker of `--engine ray` opens; it needs no Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from catdog_edge.bulk.on_ray import portable
from catdog_edge.runtime.model_file import ZOO, find_model
from catdog_edge.runtime.providers import nvidia


def test_a_shipped_model_is_sent_by_name_and_takes_the_form_for_the_worker(tmp_path: Path) -> None:
    sent = portable("fast")
    assert nvidia.model_for(find_model(sent), "cuda").path == ZOO / "fast.half.onnx"
    assert portable(None) == "fast"
    file = tmp_path / "own.onnx"
    file.write_bytes(b"a model of one's own")
    assert portable(str(file)) == portable(file.read_bytes()) == file.read_bytes()
