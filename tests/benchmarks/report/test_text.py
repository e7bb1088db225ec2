"""Numbers, names and tables as text."""

from __future__ import annotations

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")


from benchmarks.report import text as words


@pytest.mark.parametrize(
    ("value", "text"), [(0.0523, "0.052"), (0.523, "0.52"), (1.25, "1.25"), (12.34, "12.3")]
)
def test_figures_have_the_digits_that_count(value, text):
    assert words.figure(value) == text


def test_words():
    assert words.abbreviate("pytorch-channels-last", 12) == "pytor~s-last"
    assert words.abbreviate("pytorch-channels-last", 12, head=2) == "py~nels-last"
    assert words.p_value(0.0004) == "<0.001"
    assert words.p_value(0.001) == "0.001"
    assert words.p_value(0.9994) == "0.999"
    assert words.p_value(0.9996) == words.p_value(1.0) == "1"
    assert words.milliseconds(-0.08) == "-0.08"
    assert words.milliseconds(123.4) == "123"
    assert words.wrap("a " * 60 + "b")[0] == "a " * 49 + "a"


@pytest.mark.parametrize(
    "names",
    [
        ["model", "pytorch-channels-last"],
        [f"catdog-edge_cnn-{what}-2026-static-float32" for what in ("photographs", "drawings-set")],
        [f"simple/model.{kind}@openvino" for kind in ("static", "dynamic")],
        [f"{'a' * 20}{number}{'z' * 20}" for number in range(12)],
        [f"{'a' * 30}{left}{'-' * 30}{right}{'z' * 30}" for left in "12" for right in "12"],
    ],
)
def test_names_that_are_cut_can_still_be_told_apart(names):
    for width in (8, 12, 20, 30):
        short = words.abbreviate_all([*names, names[0]], width)
        assert set(short) == set(names)
        assert len(set(short.values())) == len(names)
        assert max(map(len, short.values())) <= width
        for name in names:
            assert short[name] == name or len(name) > width
