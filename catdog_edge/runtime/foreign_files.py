"""Recognise model files of other tools by their first bytes, and say how to convert them."""

from __future__ import annotations

import contextlib
from pathlib import Path

WAY_IN = "then: catdog-edge import FILE.onnx --labels A,B"

_TENSORFLOW = f"make an ONNX file of it with tf2onnx, {WAY_IN}"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save before 1.6: not a zip

_WEIGHTS = (
    "it has weights without the code of a network; make an ONNX file of the network with "
    f"torch.onnx.export where its code is, {WAY_IN}"
)


def foreign_model(path: Path) -> str:
    """Describe a file of another tool and how to convert it; empty for any other file.

    Examples:
        >>> foreign_model(Path("model.tflite"))
        'a TensorFlow Lite model, not an ONNX file; make an ONNX file of it with tf2onnx, ...'
    """
    with contextlib.suppress(OSError):
        with path.open("rb") as stream:
            head = stream.read(16)
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            return f"a Keras model (HDF5), not an ONNX file; {_TENSORFLOW}"
        if head[4:8] == b"TFL3":
            return f"a TensorFlow Lite model, not an ONNX file; {_TENSORFLOW}"
        if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < path.stat().st_size:
            return f"a file of safetensors, not an ONNX file; {_WEIGHTS}"
        if head.startswith(_LEGACY):
            return f"a PyTorch file, but not a checkpoint of catdog-edge: {_WEIGHTS}"
        if head.startswith(b"PK"):
            return _of_zip(path)
    return ""


def _of_zip(path: Path) -> str:
    import zipfile  # slow to load
    import zlib

    with (
        contextlib.suppress(RuntimeError, ValueError, zipfile.BadZipFile, zlib.error),
        zipfile.ZipFile(path) as archive,
    ):
        names = archive.namelist()
        if {"config.json", "model.weights.h5"} <= set(names):
            return f"a Keras model, not an ONNX file; {_TENSORFLOW}"
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "a TorchScript program, which torch.onnx cannot export; make an ONNX file of the "
                f"network that it was made from, {WAY_IN}"
            )
        for name in names:
            # The spec of a checkpoint of catdog-edge is a text in it.
            if name.endswith("/data.pkl") and b'"architecture"' not in archive.read(name):
                return f"a PyTorch file, but not a checkpoint of catdog-edge: {_WEIGHTS}"
    return ""
