from __future__ import annotations

import pytest

from catdog_edge.errors import CatdogError, GateError, first_line


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("one", "one"),
        ("\n\n  two  \nthree", "two"),
        ("", "ValueError"),
        (" \n ", "ValueError"),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no such kernel", "no such kernel"),
        ("/onnx/version.h:12: f: Assertion `a` of b failed: not this opset", "not this opset"),
        ("x" * 500, "x" * 160),
    ],
)
def test_the_first_line_of_an_error(message: str, expected: str) -> None:
    assert first_line(ValueError(message)) == expected


def test_the_first_line_is_cut_where_asked() -> None:
    assert first_line(ValueError("abcdef"), 3) == "abc"


def test_exit_codes() -> None:
    assert (CatdogError("x").exit_code, GateError("x").exit_code) == (1, 3)
