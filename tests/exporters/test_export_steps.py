"""What an export keeps, refuses and leaves as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch; install [train]")
pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from support.commands.export_command import export, last_line

from catdog_edge.runtime.model_file import ModelFile, read_spec
from catdog_edge.runtime.providers import start
from exporters import export_steps
from exporters.checks import predictors
from exporters.graph.nodes import set_constant
from exporters.graph.onnx_file import read_model, write_model


def test_a_file_that_answers_otherwise_is_not_written(
    lamps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export_steps.export_onnx

    def slanted(network, spec, path, **options):
        network.classifier[2].bias.data[0] += 1.0
        result = honest(network, spec, path, **options)
        network.classifier[2].bias.data[0] -= 1.0
        return result

    monkeypatch.setattr(export_steps, "export_onnx", slanted)
    done = export()
    assert done.exit_code == 3
    assert "model.onnx: probabilities differ by up to" in last_line(done)
    assert "allowed is 1e-04" in last_line(done)
    assert not (lamps / "model.onnx").exists()


def test_a_slower_file_is_refused_unless_asked_for(
    lamps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export_steps, "too_slow", lambda ratio: f"it takes {ratio} times as long as fp32"
    )
    done = export("--quantize", "dynamic")
    assert done.exit_code == 3
    assert "model.dynamic.onnx: it takes" in last_line(done)
    assert "--keep-slower" in last_line(done)
    assert (lamps / "model.onnx").is_file()
    assert not (lamps / "model.dynamic.onnx").exists()
    assert "refused" in done.stdout
    files = json.loads((lamps / "export.json").read_text())["files"]
    assert [file["kept"] for file in files] == [True, False]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("option", "form"), [("--quantize=static", "model.static.onnx"), ("--half", "model.half.onnx")]
)
def test_an_opset_that_a_form_cannot_have_is_one_line_and_changes_nothing(
    option: str, form: str, lamps: Path
) -> None:
    """Opset 28 has no DequantizeLinear in onnxruntime 1.32; fp32 loads and is not published."""
    for old in ("model.onnx", "export.json"):
        (lamps / old).write_bytes(b"of an earlier export")
    before = contents(lamps)
    done = export(option, "--opset", "28", "--limit", "32")
    assert done.exit_code == 1
    line = last_line(done)
    assert f"{form} cannot be made with opset 28" in line
    assert "choose a lower --opset: every form loads with 14 to 27" in line
    assert "catdog-export-" not in done.stderr
    assert contents(lamps) == before


def test_files_of_an_earlier_export_are_named(lamps: Path) -> None:
    (lamps / "model.half.onnx").write_bytes(b"of other weights")
    done = export("--limit", "32", "--max-drop", "0.7", "--batch", "3")
    assert done.exit_code == 0, done.output
    assert "note: model.half.onnx in " in done.stderr
    assert "of an earlier export" in done.stderr
    assert (lamps / "model.half.onnx").read_bytes() == b"of other weights"
    document = json.loads((lamps / "export.json").read_text())
    assert document["of_an_earlier_export"] == ["model.half.onnx"]
    assert [file["file"] for file in document["files"]] == ["model.onnx"]
    assert document["files"][0]["pictures_a_call"] == 3
    options = document["options"]
    assert (options["max_drop"], options["batch"], options["limit"]) == (0.7, 3, 32)
    assert options["keep_slower"] is False
    assert read_spec(lamps / "model.onnx").metrics["export"]["pictures_a_call"] == 3
    assert "a call of 3 images" in done.stdout


def test_a_gpu_whose_calls_fail_is_a_note_and_the_file_is_kept(
    lamps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA starts, but has no kernels for this GPU, or no memory left."""

    class Broken:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, *_: object) -> None:
            raise Fail("CUDA failure 209: no kernel image is available for execution")

    def start_session(file: ModelFile, pairs: object, settings: start.Settings) -> Broken:
        return Broken(start.start_session(file, [(start.NAMES["cpu"], {})], settings))

    monkeypatch.setattr(predictors, "start_session", start_session)
    done = export("--for", "cuda", "--limit", "32")
    assert done.exit_code == 0, done.output
    assert "not timed: cuda failed (CUDA failure 209: no kernel image" in done.stderr
    (_, half) = json.loads((lamps / "export.json").read_text())["files"]
    assert (half["kept"], half["provider"], half["p50_ms"]) == (True, "cpu", None)


def test_a_file_without_answers_is_refused_and_the_others_stay(
    lamps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export_steps.convert_fp16

    def overflown(source: Path, path: Path) -> None:
        honest(source, path)
        model = read_model(path)
        bias = model.graph.initializers["classifier.2.bias"]
        set_constant(bias, np.full(2, np.inf, np.float16))
        write_model(model, path)

    monkeypatch.setattr(export_steps, "convert_fp16", overflown)
    done = export("--half", "--limit", "32")
    assert done.exit_code == 3
    assert "not kept: model.half.onnx: 20 answers are not finite" in last_line(done)
    assert not (lamps / "model.half.onnx").exists()
    assert (lamps / "model.onnx").is_file()
    rows = json.loads((lamps / "export.json").read_text())["files"]
    assert [(row["file"], row["kept"]) for row in rows] == [
        ("model.onnx", True),
        ("model.half.onnx", False),
    ]
    assert rows[1]["verification"] is None
