"""Scales of the charts."""

from __future__ import annotations

import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")


from benchmarks.report import chart_scale


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0.0, 1.0, False), (91.3, 97.2, False), (0.03, 4.0, True), (9.1, 9.9, True)],
)
def test_ticks_are_round_inside_and_few(low, high, log):
    ticks = chart_scale.Scale(low, high, 0, 500, log=log).ticks(7)
    assert all(low <= tick <= high for tick in ticks)
    assert len(ticks) <= 7
    assert ticks == sorted(ticks)
    if not log:
        assert len(ticks) >= 2


def test_a_scale_maps_its_ends():
    found = chart_scale.Scale(1.0, 100.0, 10, 210, log=True)
    assert (found(1.0), found(10.0), found(100.0), found(0.5)) == (10, 110, 210, 10)


def test_a_scale_has_room_at_both_sides():
    assert chart_scale.padded([1.0, 2.0], 0.1) == pytest.approx((0.9, 2.1))
    assert chart_scale.padded([4.0, 4.0]) == pytest.approx((3.996, 4.004))
    assert chart_scale.padded([0.0]) == (-1e-6, 1e-6)
    assert chart_scale.padded([1.0, 16.0], 0.25, log=True) == pytest.approx((0.5, 32.0))
    assert chart_scale.padded([10.0], log=True) == pytest.approx((10 / 1.05, 10.5))
