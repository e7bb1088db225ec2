"""Files of tiny networks, made once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once() -> Iterator[None]:
    """Keep PyTorch's table of ONNX operators, which it parses anew at every export."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        table = registration.ONNXRegistry
        cached = staticmethod(functools.cache(table.from_torchlib))
        patch.setattr(table, "from_torchlib", cached)
        yield


@pytest.fixture(scope="session")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tells three kinds of `tinynets.pictures` apart."""
    from support.tinynets import FRAMES, TRUTH, answers, trained

    from exporters.formats.torch_export import export_onnx

    path = export_onnx(*trained(), tmp_path_factory.mktemp("tiny") / "model.onnx").path
    assert (answers(path, FRAMES).argmax(1) == TRUTH).mean() > 0.9  # worth judging by
    return path


@pytest.fixture(scope="session")
def fragile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that int8 ruins."""
    from support.tinynets import FRAMES, TRUTH, answers, fragile

    from exporters.formats.torch_export import export_onnx

    path = export_onnx(*fragile(), tmp_path_factory.mktemp("fragile") / "model.onnx").path
    assert (answers(path, FRAMES).argmax(1) == TRUTH).mean() > 0.9
    return path
