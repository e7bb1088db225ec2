"""Which frames of a live stream are old, and which are damaged."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from catdog_edge.camera.freshness import STALE, DamageFilter, Freshness


def lags(
    stamps: list[float], arrivals: list[float], *, timed: bool = True, queued: bool = False
) -> list[float]:
    fresh = Freshness(timed=timed)
    pairs = zip(arrivals, stamps, strict=True)
    return [fresh.lag(arrival, stamp, queued=queued) for arrival, stamp in pairs]


def test_a_burst_after_a_connect_is_old_until_it_caught_up() -> None:
    stamps = [n / 10 for n in range(40)]
    # 20 frames lie ready and come within milliseconds, the others when they are made.
    arrivals = [100 + n / 1000 for n in range(20)] + [100 + (n - 19) / 10 for n in range(20, 40)]
    found = lags(stamps, arrivals)
    assert all(lag > STALE for lag in found[:20])
    assert max(found[21:]) < 0.1


def test_frames_kept_back_by_the_network_are_old() -> None:
    stamps = [n / 10 for n in range(100)]
    arrivals = [n / 10 for n in range(50)] + [max(n / 10, 8.0) for n in range(50, 100)]
    found = lags(stamps, arrivals)
    assert max(found[1:50]) < 0.01
    assert all(lag > STALE for lag in found[50:69]), "made more than a second before they came"
    assert max(found[81:]) < 0.01, "those that were made afterwards are not old"


def test_a_stream_that_falls_behind_slowly_is_noticed() -> None:
    stamps = [n / 10 for n in range(400)]
    arrivals = [n / 10 * 1.1 for n in range(400)]
    found = lags(stamps, arrivals, queued=True)
    assert found[20] < STALE < found[200], "ten percent slower: a second behind after ten"


@pytest.mark.parametrize("drift", [1.0003, 0.9997])
def test_a_camera_clock_that_drifts_is_not_a_delay(drift: float) -> None:
    stamps = [n * drift for n in range(100_000)]  # a day
    assert max(lags(stamps, [float(n) for n in range(100_000)])[1:]) < 0.1


def test_a_camera_whose_clock_was_set_goes_on() -> None:
    stamps = [n / 10 for n in range(50)] + [n / 10 - 3600 for n in range(50, 100)]
    assert max(lags(stamps, [n / 10 for n in range(100)])[1:]) < 0.01


def test_without_times_the_frame_after_a_silence_is_old() -> None:
    arrivals = [0.0, 0.1, 0.2, 0.3, 3.0, 3.1, 3.2]
    assert [lag > STALE for lag in lags(arrivals, arrivals, timed=False)] == [
        *[False] * 4,
        True,
        False,
        False,
    ]
    slow = [4.0 * n for n in range(10)]
    assert max(lags(slow, slow, timed=False)) == 0, "a slow camera is not a silent one"


def test_after_damage_only_a_key_frame_is_believed() -> None:
    whole = DamageFilter()
    error = ["[h264 @ 0x55d0c0ffee] error while decoding MB 3 7"]
    harmless = [
        "[rtsp @ 0x1] max delay reached. need to consume packet",
        "[swscaler @ 0x1] deprecated pixel format used",
        "[mjpeg @ 0x1] unable to decode APP fields: Invalid data found",
    ]
    i, p = ord("I"), ord("P")
    told = [
        whole.is_intact(*frame)
        for frame in [([], i), (harmless, p), (error, p), ([], p), (error, i), ([], i), ([], p)]
    ]
    assert told == [True, True, False, False, False, True, True]


# A camera that makes another number of frames than its timestamps say.


def shaken(count: int, fps: float, jitter: float) -> list[float]:
    """When frames arrive that are made at a rate, each up to `jitter` seconds late."""
    random_numbers = random.Random(7)
    return sorted(number / fps + random_numbers.uniform(0, jitter) for number in range(count))


@pytest.mark.parametrize("jitter", [0.0, 0.05])
@pytest.mark.parametrize(
    ("sent", "stamped"),
    [(21, 25), (21, 20), (29.5, 30), (12.5, 25), (10, 25), (25, 15), (5, 25)],
)
def test_a_camera_that_stamps_another_rate_than_it_sends_is_fresh(
    sent: float, stamped: float, jitter: float
) -> None:
    count = round(600 * sent)  # ten minutes
    found = lags([n / stamped for n in range(count)], shaken(count, sent, jitter))
    assert max(found[3:]) < STALE


@pytest.mark.parametrize("burst", [5, 12])
@pytest.mark.parametrize(("sent", "stamped"), [(21, 25), (21, 20), (24, 25), (12.5, 25)])
def test_frames_that_come_in_bursts_are_fresh(sent: float, stamped: float, burst: int) -> None:
    """Some cameras and access points send several frames at once, after one wait."""
    fresh = Freshness(timed=True)
    found = [
        fresh.lag(
            (n // burst + 1) * burst / sent + n % burst / 2000, n / stamped, queued=n % burst > 0
        )
        for n in range(round(600 * sent))
    ]
    assert sum(lag > STALE for lag in found) < 40
    assert max(found[100:]) < STALE + burst / sent


@pytest.mark.parametrize(("sent", "stamped"), [(21, 25), (24, 25), (25, 30)])
def test_frames_that_are_shaken_by_a_third_of_a_second_are_fresh(
    sent: float, stamped: float
) -> None:
    count = round(600 * sent)
    arrivals = shaken(count, sent, 0.3)
    fresh = Freshness(timed=True)
    waits = [0.0, *(b - a for a, b in pairwise(arrivals))]
    found = [
        fresh.lag(at, n / stamped, queued=wait < 0.005)
        for n, (at, wait) in enumerate(zip(arrivals, waits))
    ]
    assert sum(lag > STALE for lag in found) < 0.01 * count


def test_timestamps_in_a_wrong_unit_are_fresh_after_seconds() -> None:
    """Every frame is stamped a second after the one before."""
    assert max(lags([float(n) for n in range(15_000)], [n / 25 for n in range(15_000)])[80:]) == 0


def test_a_network_that_stands_still_is_noticed_whatever_the_stamped_rate() -> None:
    stamps = [n / 25 for n in range(4200)]
    arrivals = [n / 21 for n in range(4200)]
    held = [n for n, at in enumerate(arrivals) if 100 < at < 103]
    for n in held:
        arrivals[n] = 103 + (n - held[0]) / 10_000
    found = lags(stamps, arrivals)
    assert all(found[n] > STALE for n in held[:30]), "made more than a second before they came"
    assert max(found[3 : held[0]]) < STALE
    assert max(found[held[-1] + 1 :]) < STALE


def test_a_rate_that_changes_is_followed() -> None:
    """By night the camera takes half of the frames that its timestamps go on counting."""
    arrivals, at = [], 0.0
    for number in range(30_000):
        at += 1 / (25 if number // 10_000 % 2 == 0 else 12.5)
        arrivals.append(at)
    assert max(lags([n / 25 for n in range(30_000)], arrivals)[1:]) < STALE


def test_a_queue_that_grows_evenly_and_then_overflows_is_a_delay() -> None:
    stamps, stamp = [], 0.0
    for number in range(2100):
        stamp += 1 / 25
        if number > 300 and number % 40 == 0:  # what does not fit is dropped
            stamp += 40 / 21 - 40 / 25
        stamps.append(stamp)
    found = lags(stamps, [n / 21 for n in range(2100)])
    assert max(found[1:310]) < STALE
    assert min(found[400:]) > STALE


def test_what_waits_for_us_is_a_delay_however_even() -> None:
    count = 2100
    found = lags([n / 25 for n in range(count)], [n / 21 for n in range(count)], queued=True)
    assert min(found[200:]) > STALE


def test_timestamps_that_stand_still_are_not_believed() -> None:
    assert max(lags([5.0] * 3000, [n / 15 for n in range(3000)])[30:]) < STALE


def test_a_short_jam_after_a_learned_rate_counts_in_full() -> None:
    """The growth ends within seconds: all of it may have been a queue."""
    arrivals = [n / 21 for n in range(210)]
    arrivals += [arrivals[-1] + n / 25 for n in range(1, 500)]
    found = lags([n / 25 for n in range(len(arrivals))], arrivals)
    assert max(found[1:200]) < STALE
    assert min(found[-100:]) > STALE


def test_timestamps_that_leap_ahead_show_a_queue() -> None:
    stamps = [n / 25 + (1.5 if n >= 420 else 0.0) for n in range(440)]
    found = lags(stamps, [n / 21 for n in range(440)])
    assert max(found[1:420]) < STALE
    assert min(found[420:]) > STALE, "what was not dropped is still late"
