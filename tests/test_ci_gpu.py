"""`.ci/gpu` where there is no GPU: what needs one is skipped, and the table says so."""

from __future__ import annotations

import argparse
import json
import runpy
import sys

import pytest
from support.paths import ROOT

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnxruntime", reason="needs a flavour of the package")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_steps_that_need_a_gpu_are_skipped_and_said_so(tmp_path, monkeypatch, capsys):
    steps = ["parity", "hand", "throughput", "torchrun"]
    monkeypatch.setenv("GPU_INSIDE", "1")
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--steps", ",".join(steps), "--out", str(tmp_path / "out")]
    )
    main = runpy.run_path(str(ROOT / ".ci/gpu"))["main"]
    assert main() == 0
    table = (tmp_path / "out/gpu.md").read_text()
    assert "no NVIDIA GPU" in table
    assert "0 missed, 4 skipped" in table
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[:-1]] == steps
    # A driver that fails costs the description alone.
    from benchmarks.measure import gpu

    with monkeypatch.context() as patch:
        patch.setattr(gpu.Gpu, "detect", lambda: 1 / 0)
        assert main() == 0
    table = (tmp_path / "out/gpu.md").read_text()
    assert "the GPU cannot be described (ZeroDivisionError" in table
    assert "0 missed, 4 skipped" in table
    # A line of an earlier call stays, a step that fails is a miss.
    kept = tmp_path / "out/gpu.json"
    kept.write_text(json.dumps({"doctor": [["doctor", "x", "of before", "", "met"]]}))
    monkeypatch.setitem(main.__globals__["STEPS"], "hand", lambda check: 1 / 0)
    assert main() == 1
    table = (tmp_path / "out/gpu.md").read_text()
    assert "ZeroDivisionError" in table
    assert "of before" in table
    assert "1 missed, 3 skipped" in table


def test_a_network_that_is_lacking_is_a_miss(tmp_path):
    check = runpy.run_path(str(ROOT / ".ci/gpu"))["Check"]
    chosen = argparse.Namespace(out=tmp_path / "out", runs=tmp_path / "none", data="sample")
    with pytest.raises(RuntimeError, match="no exported simple_cnn and edge_cnn"):
        check(chosen).files()
    chosen = argparse.Namespace(out=tmp_path / "out", runs=None, data=str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match=r"train-simple_cnn\.log"):
        check(chosen).files()
    assert "give --data a folder" in (tmp_path / "out/train-simple_cnn.log").read_text()


def test_the_last_line_of_a_command_is_in_the_table_as_a_whole(tmp_path):
    check = runpy.run_path(str(ROOT / ".ci/gpu"))["Check"](argparse.Namespace(out=tmp_path))
    said = f"3.1 times as fast as PyTorch; ship {tmp_path}/{'folder/' * 30}model.static.onnx"
    _, found, _, state = check.command("bench", "-c", f"print({said!r})")
    assert found.startswith(f"{said} (")
    assert state == "met"
