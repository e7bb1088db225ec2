from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.batches.loader import BatchLoader, batch_bounds

PIXELS = np.arange(23, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
LABELS = np.arange(23, dtype=np.int64)


def epoch(first_step: int = 0, policy: str = "none", number: int = 0, seed: int = 5) -> list:
    loader = BatchLoader(PIXELS, LABELS, batch_size=5, policy=policy, seed=seed)
    return list(loader.epoch(number, first_step))


def test_every_picture_comes_once_with_its_label() -> None:
    made = epoch()
    assert len(made) == len(batch_bounds(23, 5)) - 1 == 5
    seen = torch.cat([batch.labels for batch in made])
    assert sorted(seen.tolist()) == list(range(23))
    for pixels, labels, _ in made:
        assert pixels.dtype == torch.uint8
        assert (pixels[:, 0, 0, 0] == labels).all()


def test_epochs_and_seeds_differ_in_order() -> None:
    first = torch.cat([batch.labels for batch in epoch()])
    assert not torch.equal(first, torch.cat([batch.labels for batch in epoch(number=1)]))
    assert not torch.equal(first, torch.cat([batch.labels for batch in epoch(seed=6)]))


@pytest.mark.parametrize("policy", ["default", "classic"])
def test_an_interrupted_epoch_goes_on_with_the_very_batches(policy: str) -> None:
    whole, rest = epoch(policy=policy), epoch(policy=policy, first_step=2)
    for (pixels, labels, _), (again, labels_again, _) in zip(whole[2:], rest, strict=True):
        assert torch.equal(pixels, again)
        assert torch.equal(labels, labels_again)


def test_no_batch_holds_a_single_picture() -> None:
    assert batch_bounds(21, 5) == [0, 5, 10, 15, 21]
    assert batch_bounds(20, 5) == [0, 5, 10, 15, 20]
    assert batch_bounds(1, 5) == [0, 1]


@pytest.mark.parametrize("policy", ["default", "classic", "none"])
def test_processes_share_a_batch_and_change_each_picture_alike(policy: str) -> None:
    settings = {"batch_size": 6, "policy": policy, "seed": 5}
    for processes in (2, 3):
        parts = [
            [*BatchLoader(PIXELS, LABELS, rank=rank, processes=processes, **settings).epoch(1)]
            for rank in range(processes)
        ]
        bounds = batch_bounds(23, 6, processes)
        assert all(len(part) == len(bounds) - 1 for part in parts)
        whole = [*BatchLoader(PIXELS, LABELS, **settings).epoch(1)]
        if bounds != batch_bounds(23, 6):
            continue
        for step, (pixels, labels, _) in enumerate(whole):
            for rank, part in enumerate(parts):
                assert torch.equal(part[step][0], pixels[rank::processes])
                assert torch.equal(part[step][1], labels[rank::processes])


def test_no_process_is_left_with_less_than_two_pictures() -> None:
    assert batch_bounds(23, 10, 2) == [0, 10, 23]
    assert batch_bounds(24, 10, 2) == [0, 10, 20, 24]


def test_scales_are_drawn_per_batch_and_resize_the_pictures() -> None:
    loader = BatchLoader(PIXELS, LABELS, batch_size=5, policy="none", seed=5)
    made = list(loader.epoch(0, scales=(0.5, 1.0)))
    again = list(loader.epoch(0, scales=(0.5, 1.0)))
    sizes = [tuple(pixels.shape[1:3]) for pixels, *_ in made]
    assert set(sizes) == {(4, 4), (8, 8)}
    for (pixels, labels, _), (other, *_) in zip(made, again, strict=True):
        assert torch.equal(pixels, other)
        assert (pixels[:, 0, 0, 0] == labels).all(), "flat pictures keep their level"


@pytest.mark.parametrize("scales", [(1.0,), (0.5,)])
def test_detailed_pictures_are_changed_first_and_made_smaller_afterwards(
    scales: tuple[float, ...],
) -> None:
    generator = np.random.default_rng(0)
    large = generator.integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
    labels = np.arange(6) % 2
    others = NegativeSampler(large[:2], label=2, share=0.5)
    settings = {"batch_size": 6, "policy": "default", "seed": 5, "negatives": others}
    (batch,) = BatchLoader(large, labels, detail=1.5, **settings).epoch(0, scales=scales)
    (plain,) = BatchLoader(large, labels, **settings).epoch(0)
    assert torch.equal(batch.detailed, plain.pixels)
    assert batch.pixels.shape[1:3] == (16 * scales[0], 16 * scales[0])
    side = batch.pixels.shape[1]
    for small, picture in zip(batch.pixels.numpy(), plain.pixels.numpy(), strict=True):
        expected = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        assert np.array_equal(small, expected)


def test_the_worker_ends_when_the_epoch_is_left_early() -> None:
    before = set(threading.enumerate())  # a failed run of another test may not be collected yet
    source = BatchLoader(PIXELS, LABELS, batch_size=5, policy="none", seed=0).epoch(0)
    next(source)
    started = set(threading.enumerate()) - before
    assert [thread.name for thread in started] == ["batches_0"]
    source.close()
    assert not any(thread.is_alive() for thread in started)


def test_equal_shares_draw_every_picture_once() -> None:
    loader = BatchLoader(
        PIXELS, LABELS, batch_size=5, policy="none", seed=5, shares=np.full(23, 1 / 23)
    )
    for number in range(5):
        seen = torch.cat([batch.labels for batch in loader.epoch(number)])
        assert sorted(seen.tolist()) == list(range(23))


def test_a_seed_makes_the_same_batches_as_ever() -> None:
    """A run that is resumed after an upgrade goes on as it would have."""
    coarse = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    others = NegativeSampler(images[14:], 3, 0.5, drawn=0.0)
    loader = BatchLoader(
        images[:14], np.arange(14) % 3, batch_size=5, policy="classic", seed=7, negatives=others
    )
    assert loader.steps == 3
    wanted = [
        ([1, 1, 2, 2, 0, 3, 3], 16, [117, 99, 97, 102, 119, 107, 121]),
        ([0, 0, 0, 0, 1, 3, 3], 8, [105, 103, 105, 115, 119, 133, 141]),
        ([2, 1, 2, 1, 3, 3], 8, [114, 119, 102, 121, 95, 107]),
    ]
    for batch, (labels, side, levels) in zip(
        loader.epoch(1, scales=(0.5, 1.0)), wanted, strict=True
    ):
        assert batch.labels.tolist() == labels
        assert batch.pixels.shape[1:] == (side, side, 3)
        assert np.abs(batch.pixels.numpy().mean((1, 2, 3)) - levels).max() <= 1


def test_a_batch_has_a_negative_at_least_and_larger_images_are_interpolated() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    others = NegativeSampler(images[4:], 2, 0.01, drawn=0.0)
    loader = BatchLoader(images[:4], np.arange(4) % 2, 4, "none", 1, negatives=others)
    (batch,) = loader.epoch(0, scales=(1.5,))
    assert batch.labels.tolist().count(2) == 1
    for large, image in zip(batch.pixels.numpy(), batch.detailed.numpy(), strict=True):
        wanted = cv2.resize(image, (12, 12), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(large, wanted)
