from __future__ import annotations

import pytest
from support.commands.parsing import parsed, refusal


@pytest.mark.train
def test_for_cuda_makes_no_int8_file() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    assert "--for cuda makes no int8 file" in refusal(
        "export", "--for", "cuda", "--quantize", "all"
    )


def test_quantize_alone_is_both() -> None:
    assert parsed("export")["quantize"] is None
    assert parsed("export", "--quantize")["quantize"] == "auto"
    assert parsed("export", "--quantize", "static", "--half")["quantize"] == "static"
