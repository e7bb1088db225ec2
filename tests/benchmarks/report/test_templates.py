"""What the templates format values with."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2", reason="reports need jinja2; install [train]")

from benchmarks.report import templates


def test_counts_and_sentences() -> None:
    assert templates.many(1, "picture") == "1 picture"
    assert templates.many(2000, "image") == "2,000 images"
    assert templates.part(3, 3) == "3 images"
    assert templates.part(200, 1317) == "200 of 1,317 images"
    assert templates.sentence("the cat is in") == "The cat is in."


def test_a_row_has_the_colour_of_its_precision_and_breaks_before_its_provider() -> None:
    assert templates.family({"engine": "pytorch", "precision": "fp32"}) == "torch"
    assert templates.family({"engine": "onnxruntime", "precision": "fp16"}) == "fp16"
    assert templates.name("<b>@cuda") == "&lt;b&gt;<wbr>@cuda"


@pytest.mark.parametrize(
    ("difference", "high", "shade"),
    [(-0.05, -0.01, 0.275), (-0.2, -0.1, 0.55), (-0.05, 0.0, 0.0), (0.02, 0.03, 0.0)],
)
def test_only_what_chance_does_not_explain_is_shaded(
    difference: float, high: float, shade: float
) -> None:
    found = templates.shade({"difference": difference, "difference_high": high})
    assert found == pytest.approx(shade)


def test_a_path_joins_its_corners() -> None:
    assert templates.path_data([(0, 1.5), (2.25, 3)]) == "0 1.5 L2.25 3"


def test_html_is_escaped_and_what_is_missing_is_an_error() -> None:
    assert templates.get("page.html").environment.autoescape("page.html")
    assert not templates.get("bench.md").environment.autoescape("bench.md")
    assert templates.get("bench.md") is templates.get("bench.md")
