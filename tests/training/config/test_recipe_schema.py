"""Plain values against annotations: each kind, its bounds, and what is converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

pytest.importorskip("yaml", reason="recipes need PyYAML; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipe_schema import Bounds, build, check_fields, check_value


@dataclass(frozen=True)
class Point:
    x: Annotated[float, Bounds(0, 1)]
    y: int = 3

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        (int, 3, 3), (float, 3, 3.0), (float, "1e-3", 0.001), (bool, True, True), (str, "x", "x"),
        (dict, {"a": 1}, {"a": 1}),
        (Literal["a", "b"], "b", "b"), (tuple[int, ...], [1, 2], (1, 2)),
        (int | None, None, None), (int | None, 4, 4), (Annotated[int, Bounds(2, 5)], 2, 2),
        (Annotated[int, Bounds(2, 5)], 5, 5), (Point, {"x": 1}, Point(1.0)),
        (Point, Point(0.5, 1), Point(0.5, 1)),
    ],
)  # fmt: skip
def test_what_fits_is_taken(kind: Any, value: Any, made: Any) -> None:
    found = check_value(kind, value, "it")
    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (int, True, "a whole number"), (int, 2.0, "a whole number"), (float, True, "a finite"),
        (float, "nan", "a finite"), (float, float("inf"), "a finite"), (float, "x", "a finite"),
        (int, "x" * 300, "a whole number"),
        (bool, 1, "true or false"), (str, 1, "text"), (dict, [], "a table"),
        (Literal["a", "b"], "c", "choose one of: a, b"), (tuple[int, ...], 1, "a list"),
        (tuple[int, ...], [1, "x"], "a whole number"), (Annotated[int, Bounds(2, 5)], 1, "give 2"),
        (Annotated[int, Bounds(2, 5)], 6, "give 2 to 5"), (Point, 7, "a table with x, y"),
        (Point, {"z": 1}, "a point has no 'z'; it has: x, y"), (Point, {"y": 1}, "lacks x"),
    ],
)  # fmt: skip
def test_what_does_not_is_named(kind: Any, value: Any, wanted: str) -> None:
    with pytest.raises(CatdogError, match=wanted) as caught:
        check_value(kind, value, "it")
    assert len(str(caught.value)) < 130


def test_fields_are_converted() -> None:
    with pytest.raises(CatdogError, match="it is a number of thousands of digits"):
        check_value(str, 10**5000, "it")
    assert build(Point, {"x": "0.5"}) == Point(0.5, 3)
