"""The gain of a first convolution over blocks of four pixels: a row for each file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")

from support.models.tiny_nets import trained
from support.paths import DATA

from benchmarks.studies import first_convolution
from exporters.formats.torch_export import export_onnx

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_a_file_has_a_row_with_both_times_and_the_same_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, spec = trained()
    model = export_onnx(network, spec, tmp_path / "model.onnx").path
    assert first_convolution.main([str(model), "--seconds", "0.1", "--threads", "1"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| network | as it is, ms | four pixels at once, ms | ratio | answers |"
    network, plain, merged, ratio, answers = row.strip("| ").split(" | ")
    assert (network, answers) == (f"{spec.architecture} {spec.height}", "the same")
    plain_ms, merged_ms = float(plain), float(merged)
    assert 0.001 < plain_ms < 50
    assert float(ratio.split()[0]) == pytest.approx(merged_ms / plain_ms, rel=0.9)


def test_a_file_of_another_layout_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert first_convolution.main([str(DATA / "tiny_float.onnx")]) == 1
    assert "--layout nhwc-uint8" in capsys.readouterr().err
