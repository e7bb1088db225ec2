from __future__ import annotations

import pytest

from catdog_edge.errors import (
    CatdogError,
    GateError,
    escaped,
    first_line,
    label_difference,
    list_names,
)


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat 猫 é", "cat 猫 é"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("half \ud83d", r"half \ud83d"),
        ("evil\u202egpj.exe", r"evil\u202egpj.exe"),
        ("line\u2028end", r"line\u2028end"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_exit_codes() -> None:
    assert (CatdogError("x").exit_code, GateError("x").exit_code) == (1, 3)


def test_messages_about_many_classes_are_bounded_and_name_what_differs() -> None:
    many = [f"class {number}" for number in range(300)]
    assert label_difference(["cat", "dog"], ["cat", "fox"]) == "cat, dog against cat, fox"
    other = [*many[:250], "fox", *many[251:]]
    found = label_difference(many, other)
    assert "without class 250 and with fox" in found
    assert label_difference(many, many[::-1]).endswith("in another order")
    assert len(label_difference(many, [f"k{number}" for number in range(300)])) < 400
    assert list_names(many[:10]).count(",") == 9
    assert list_names(many).endswith("class 9, ... (300 in all)")
