from __future__ import annotations

import pytest
from support.commands.parsing import parsed, refusal


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "1,1"], "different whole numbers of 1 to 256"),
        (["--threads", "257"], "different whole numbers of 1 to 256"),
        (["--threads", "two"], "different whole numbers of 1 to 256"),
        (["--batch", "0"], "different whole numbers of 1 to 65536"),
        (["--batch", "1,1"], "different whole numbers of 1 to 65536"),
        (["--batch", "1,100000"], "different whole numbers of 1 to 65536"),
        (["--batch", "two"], "different whole numbers of 1 to 65536"),
        (["--seconds", "0"], "not in the range"),
        (["--min-agreement", "0.99"], "looks like a share"),
        (["--min-agreement", "1"], "looks like a share"),
        (["--min-agreement", "101"], "not in the range"),
        (["--tolerance", "0.1"], "looks like a share"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], said: str) -> None:
    assert said in refusal("bench", *arguments)


@pytest.mark.train
@pytest.mark.parametrize("ratios", [["model"], ["model=inf"], ["model=1", "model=2"]])
def test_a_wrong_ratio_is_explained(ratios: list[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    options = [part for ratio in ratios for part in ("--max-ratio", ratio)]
    assert "--max-ratio" in refusal("bench", *options)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--threads", "1,8"], "threads", (1, 8)),
        (["--batch", "32"], "batches", (32,)),
        ([], "threads", ()),
        (["--min-agreement", "1.5"], "min_agreement", 1.5),
        (["--min-agreement", "99.5"], "min_agreement", 99.5),
    ],
)
def test_values_are_parsed(arguments: list[str], name: str, value: object) -> None:
    assert parsed("bench", *arguments)[name] == value
