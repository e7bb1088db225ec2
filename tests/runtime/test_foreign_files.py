from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from catdog_edge.errors import ModelError
from catdog_edge.runtime.foreign_files import foreign_model
from catdog_edge.runtime.model_file import find_model


@pytest.mark.parametrize(
    ("name", "head", "said"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n", "is a Keras model (HDF5), not an ONNX file"),
        ("model.tflite", b"\x1c\0\0\0TFL3\x14\0", "is a TensorFlow Lite model, not an ONNX file"),
        ("model.safetensors", b"\x20\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"', "of safetensors"),
    ],
)
def test_a_model_of_another_tool_is_named_for_what_it_is(
    name: str, head: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(head.ljust(100, b" "))
    with pytest.raises(ModelError) as caught:
        find_model(file)
    assert f"{file} is a" in str(caught.value)
    assert said in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert str(caught.value).endswith("then: catdog-edge import FILE.onnx --labels A,B")


def test_a_keras_zip_and_a_cut_zip(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    assert foreign_model(file).startswith("a Keras model, not an ONNX file")
    file.write_bytes(file.read_bytes()[:50])
    assert foreign_model(file) == ""
