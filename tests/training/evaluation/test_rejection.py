"""The threshold of `neither`, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="inference needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError
from catdog_edge.spec import Rejection
from catdog_edge.training.evaluation.rejection import (
    ThresholdRule,
    choose_score_threshold,
    choose_threshold,
    roc_curve,
    threshold_table,
)


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_equal_errors_lie_in_the_middle_of_a_gap_not_at_the_edge_of_a_crowd() -> None:
    seen, unseen = (
        {"a": scores(*np.linspace(0.9, 0.99, 200))},
        {"b": scores(*np.linspace(0.1, 0.3, 200))},
    )
    assert choose_threshold(seen, unseen) == pytest.approx(0.6, abs=0.02)


def test_equal_errors_where_the_crowds_overlap() -> None:
    draw = np.random.default_rng(0)
    seen, unseen = draw.normal(1, 1, 4000), draw.normal(-1, 1, 4000)
    one = choose_threshold({"a": seen}, {"b": unseen})
    assert (seen < one).mean() == pytest.approx((unseen >= one).mean(), abs=0.02)
    assert one == pytest.approx(0, abs=0.1)


def test_without_errors_one_of_the_smallest_set_is_allowed_for() -> None:
    # One error of 40 in one of two groups is a rate of 1/80, two are 1/40; 1/50 is allowed.
    seen = {"a": scores(*[0.95] * 10), "b": scores(0.3, 0.4, *[0.9] * 38)}
    unseen = {"c": scores(*[0.1] * 60)}
    assert choose_threshold(seen, unseen) == pytest.approx(0.25)


def test_rules_keep_what_they_name() -> None:
    draw = np.random.default_rng(1)
    seen, unseen = draw.normal(1, 1, 4000), draw.normal(-1, 1, 4000)
    answered = choose_threshold({"a": seen}, {"b": unseen}, ThresholdRule.parse("tpr:0.99"))
    rejected = choose_threshold({"a": seen}, {"b": unseen}, ThresholdRule.parse("tnr:0.99"))
    assert 0.99 <= (seen >= answered).mean() < 0.991
    assert 0.99 <= (unseen < rejected).mean() < 0.991


@pytest.mark.parametrize("rule", ["tpr:0.99", "tnr:0.99"])
def test_a_rule_does_not_sit_on_the_edge_of_a_crowd(rule: str) -> None:
    seen, unseen = scores(*np.linspace(0.96, 0.99, 1000)), scores(*np.linspace(0, 0.4, 1000))
    found = choose_threshold({"a": seen}, {"b": unseen}, ThresholdRule.parse(rule))
    assert found == pytest.approx(0.68, abs=0.01)


def test_a_rule_of_all_takes_the_lowest_score_or_leaves_the_highest() -> None:
    classes, negatives = {"a": scores(0.5, 0.6)}, {"b": scores(0.7, 0.8)}
    lowest = choose_threshold(classes, negatives, ThresholdRule("tpr", 1))
    highest = choose_threshold(classes, negatives, ThresholdRule("tnr", 1))
    assert (lowest, highest) == pytest.approx((0.5 - 5e-7, 0.8 + 5e-7), abs=2e-7)


@pytest.mark.parametrize("rule", ["eer", "tpr:0.99", "tnr:0.99"])
@pytest.mark.parametrize(
    ("seen", "unseen"), [((0, 0.9), (0.1, 1)), ((1, 1), (1, 1)), ((0, 0), (0, 0)), ((1, 1), (0, 0))]
)
def test_saturated_scores_have_a_threshold_that_a_spec_takes(
    rule: str, seen: tuple[float, ...], unseen: tuple[float, ...]
) -> None:
    groups = {"a": scores(*seen)}, {"b": scores(*unseen)}
    found = choose_score_threshold(*groups, ThresholdRule.parse(rule))
    assert 0 <= Rejection("known", found).threshold <= 1
    if rule.startswith("tpr"):
        assert (groups[0]["a"] >= found).all()
    if rule.startswith("tnr"):
        assert (groups[1]["b"] < found)[groups[1]["b"] < 1].all()
    assert all(0 <= row.threshold <= 1 for row in threshold_table(*groups, current=0.5))


def test_a_large_source_does_not_drown_a_small_one() -> None:
    small, large = scores(*np.linspace(0.4, 0.6, 50)), scores(*np.linspace(0.8, 0.9, 5000))
    unseen = {"b": scores(*np.linspace(0.0, 0.5, 500))}
    alone = choose_threshold({"small": small}, unseen)
    together = choose_threshold({"small": small, "large": large}, unseen)
    drowned = choose_threshold({"all": np.concatenate([small, large])}, unseen)
    assert alone < together < drowned
    assert (small < together).mean() < 0.6 < (small < drowned).mean() + 0.2


@pytest.mark.parametrize(
    "text", ["", "eer:", "eer:1", "tpr", "tpr:0", "tpr:1.5", "tnr:x", "fpr:0.1"]
)
def test_an_unknown_rule_is_refused(text: str) -> None:
    with pytest.raises(CatdogError, match=r"eer, tpr:0\.99 .* tnr:0\.99"):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("text", ["eer", "tpr:0.99", "tnr:0.995"])
def test_a_rule_prints_as_it_is_written(text: str) -> None:
    assert str(ThresholdRule.parse(text)) == text


def test_the_table_has_the_share_that_each_threshold_answers() -> None:
    draw = np.random.default_rng(4)
    seen = {"a": draw.random(100).astype(np.float32) + 0.2}
    unseen = {"b": draw.random(100).astype(np.float32)}
    rows = threshold_table(seen, unseen, current=0.123)
    assert [row.threshold for row in rows] == sorted(row.threshold for row in rows)
    (current,) = (row for row in rows if row.threshold == 0.123)
    assert current.classes == {"a": (seen["a"] >= 0.123).mean()}
    assert current.negatives == {"b": (unseen["b"] >= 0.123).mean()}


def test_a_source_of_the_classes_may_have_the_name_of_negatives() -> None:
    rows = threshold_table({"drawn": scores(0.9)}, {"drawn": scores(0.1)}, current=0.5)
    (current,) = (row for row in rows if row.threshold == 0.5)
    assert (current.classes, current.negatives) == ({"drawn": 1.0}, {"drawn": 0.0})


def test_the_curve_goes_from_corner_to_corner() -> None:
    accepted, answered = roc_curve({"web": scores(0.5, 0.9)}, scores(0.1, 0.6))
    assert accepted.tolist() == [0, 0, 0.5, 0.5, 1]
    assert answered.tolist() == [0, 0.5, 0.5, 1, 1]
