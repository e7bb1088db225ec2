from __future__ import annotations

import pytest
from support.commands.parsing import parsed, refusal


def test_a_number_is_for_all_channels_and_three_are_one_each() -> None:
    assert parsed("import", "a.onnx", "--mean", "0.5")["mean"] == (0.5, 0.5, 0.5)
    assert parsed("import", "a.onnx", "--std", "1,2,3.5")["std"] == (1, 2, 3.5)


@pytest.mark.parametrize(
    ("text", "said"), [("1,2", "one number or three"), ("a", "valid number"), ("nan", "finite")]
)
def test_other_values_of_channels_are_refused(text: str, said: str) -> None:
    assert said in refusal("import", "a.onnx", "--mean", text)
