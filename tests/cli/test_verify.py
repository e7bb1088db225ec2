from __future__ import annotations

from support.commands.parsing import parsed, refusal


def test_two_files_are_wanted() -> None:
    assert "Missing argument 'CANDIDATE'" in refusal("verify", "best.pt")


def test_without_a_limit_it_is_that_of_the_precision() -> None:
    values = parsed("verify", "best.pt", "model.onnx", "--limit", "64")
    assert (values["max_drop"], values["strict"], values["limit"]) == (None, False, 64)
