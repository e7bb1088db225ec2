"""The rows of a bench: their names, devices and references."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs a flavour of the package")


from benchmarks import bench_rows
from catdog_edge.runtime.model_file import find_model

pytestmark = pytest.mark.train


def test_names_tell_threads_batches_and_providers_apart(tmp_path):
    files = [tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx", tmp_path / "model.ort"]
    rows = bench_rows.plan_rows(
        tmp_path / "best.pt", files, providers=("cpu", "openvino"), threads=(1, 2), batches=(1, 8),
        compiled=True,
    )  # fmt: skip
    names = [row.name for row in rows]
    assert len(names) == len(set(names)) == 4 * (3 + 3 * 2)
    assert {"pytorch:t1", "pytorch-compile:t2:b8", "a/model:t1", "b/model@openvino:t2:b8",
            "model.ort:t1"} <= set(names)  # fmt: skip
    assert set(bench_rows.references(rows).values()) == {
        f"pytorch:{threads}{batch}" for threads in ("t1", "t2") for batch in ("", ":b8")
    }
    assert not any(" " in name or "=" in name for name in names)
    plain = bench_rows.plan_rows(tmp_path / "best.pt", files[:1], threads=(2,))
    assert [row.name for row in plain] == ["pytorch", "pytorch-channels-last", "model"]
    assert bench_rows.BenchRow(**dataclasses.asdict(rows[5])) == rows[5]


def test_an_imported_file_is_what_the_others_are_compared_with(tmp_path: Path) -> None:
    ours, int8 = tmp_path / "ours.onnx", tmp_path / "ours.static.onnx"
    rows = bench_rows.plan_rows(ours, [ours, int8], threads=(1, 2))
    assert [row.name for row in rows if row.is_reference] == ["ours:t1", "ours:t2"]
    assert bench_rows.references(rows)["ours.static:t2"] == "ours:t2"
    assert {row.engine for row in rows} == {"onnxruntime"}


def test_rows_on_a_gpu_have_references_of_their_own(tmp_path):
    rows = bench_rows.plan_rows(
        tmp_path / "best.pt", [tmp_path / "model.onnx"], providers=("cpu", "cuda"), threads=(2,),
        batches=(1, 256), compiled=True,
    )  # fmt: skip
    on_cpu = {"pytorch", "pytorch-channels-last", "pytorch-compile", "model"}
    on_gpu = {
        "pytorch@cuda", "pytorch-channels-last@cuda", "pytorch-half@cuda", "pytorch-compile@cuda",
        "model@cuda",
    }  # fmt: skip
    assert {row.name for row in rows} == on_cpu | on_gpu | {f"{name}:b256" for name in on_gpu}
    compared = bench_rows.references(rows)
    assert {compared[name] for name in on_cpu} == {"pytorch"}
    assert {compared[name] for name in on_gpu} == {"pytorch@cuda"}
    assert compared["model@cuda:b256"] == "pytorch@cuda:b256"
    # PyTorch is built without CUDA: then the CPU's row, where a batch has one.
    left = [row for row in rows if not row.base.startswith("pytorch") or row.device == "cpu"]
    assert bench_rows.references(left)["model@cuda"] == "pytorch"
    assert "model@cuda:b256" not in bench_rows.references(left)
    shipped = bench_rows.plan_rows(
        tmp_path / "best.pt", [find_model("fast").path], providers=("cpu", "cuda"), threads=(2,)
    )
    files = {row.name: Path(row.file).name for row in shipped if row.engine == "onnxruntime"}
    assert files == {"fast": "fast.onnx", "fast@cuda": "fast.half.onnx"}
    openvino = bench_rows.plan_rows(
        tmp_path / "best.pt", [tmp_path / "model.onnx"], providers=("openvino",), threads=(2,)
    )
    assert {row.device for row in openvino} == {"cpu"}
