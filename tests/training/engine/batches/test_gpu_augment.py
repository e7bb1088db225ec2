"""Augmentation on a device against that of OpenCV: the same draws, image by image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.batches.augment import Share, augment, draw_changes
from catdog_edge.training.engine.batches.gpu_augment import change, changes, growth, resize_tensor
from catdog_edge.training.engine.device import Upload

HEIGHT, WIDTH, COUNT = 48, 56, 400


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 9, 3), dtype=np.uint8)
    size = (WIDTH, HEIGHT)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in coarse])


def drawn(policy: str, shape: tuple[int, ...], seed: int = 5):
    return draw_changes(policy, np.random.default_rng(seed), shape, Share(shape[0], slice(None)))


def changed(pixels: np.ndarray, arrays: dict[str, np.ndarray]) -> torch.Tensor:
    sent = Upload(arrays, torch.device("cpu")).take()
    return change(torch.from_numpy(pixels), sent)


@pytest.mark.parametrize("policy", ["default", "camera", "classic"])
def test_each_image_is_changed_as_opencv_changes_it(policy: str, photographs: np.ndarray) -> None:
    draws = drawn(policy, photographs.shape)
    noisy = np.zeros(COUNT, bool)
    for deviations in (draws.noise, draws.dark_noise):
        noisy |= deviations > 0 if len(deviations) else False
    before = photographs.copy()
    here = changed(photographs, changes(draws, HEIGHT, WIDTH))
    assert here.dtype == torch.uint8
    assert here.is_contiguous()
    assert np.array_equal(photographs, before)
    by_opencv = augment(photographs, policy, np.random.default_rng(5)).astype(float)
    apart = np.abs(here.numpy() - by_opencv)
    assert apart[~noisy].max() <= 2
    assert apart[~noisy].mean((1, 2, 3)).max() < 0.3
    if policy == "classic":
        return
    # Noise is another one, of the same mean and spread.
    assert noisy.mean() == pytest.approx(0.1 if policy == "default" else 0.19, abs=0.05)
    smooth = [cv2.GaussianBlur(one, (0, 0), 2) for one in by_opencv[noisy]]
    spreads = [(one[noisy] - smooth).std((1, 2, 3)) for one in (here.numpy(), by_opencv)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.06, abs=0.5)
    means = [one[noisy].mean((1, 2, 3)) for one in (here.numpy(), by_opencv)]
    assert means[0] == pytest.approx(means[1], abs=1.5)


def test_every_operation_took_part(photographs: np.ndarray) -> None:
    draws = drawn("camera", photographs.shape)
    shares = {"far": 0.125, "blur": 0.1, "noise": 0.1, "erased": 0.1, "defocus": 0.1, "light": 0.1}
    for name, share in shares.items():
        assert (getattr(draws, name) != 0).mean() == pytest.approx(share, abs=0.05), name


def test_the_noise_repeats_with_its_seed_and_none_changes_nothing() -> None:
    flat = np.full((200, 16, 16, 3), 128, np.uint8)
    one, again, other = (
        changed(flat, changes(drawn("camera", flat.shape, seed), 16, 16)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert drawn("none", flat.shape) is None
    assert change(one, {}) is one


@pytest.mark.parametrize("size", [(24, 28), (40, 45), (36, 50), (60, 70)])
def test_images_are_resized_as_opencv_resizes_them(
    size: tuple[int, int], photographs: np.ndarray
) -> None:
    height, width = size
    method = cv2.INTER_AREA if height < HEIGHT else cv2.INTER_LINEAR
    wanted = [cv2.resize(one, (width, height), interpolation=method) for one in photographs[:20]]
    found = resize_tensor(torch.from_numpy(photographs[:20]), height, width).numpy()
    assert found.shape == (20, height, width, 3)
    assert np.abs(found - np.stack(wanted).astype(int)).max() <= 1


def test_parts_and_corners_are_grown_as_opencv_grows_them(photographs: np.ndarray) -> None:
    sampler = NegativeSampler(photographs[:50], 2, 0.4, photographs[50:], 0.5, drawn=0.0)
    generators = [[np.random.default_rng([1, number]) for number in range(100)] for _ in "ab"]
    chosen = [sampler.choose(one) for one in generators[0]]
    assert {one.times for one in chosen} == {1, 2, 3, 4}
    assert any(one.height == 0 for one in chosen)
    wanted = np.stack([sampler.draw(one) for one in generators[1]]).astype(int)
    whole = [
        (photographs[50:] if one.kind == "background" else photographs)[one.image] for one in chosen
    ]
    found = changed(np.stack(whole), growth(chosen, HEIGHT, WIDTH)).numpy()
    # A part's border pixels are repeated by OpenCV, left out here.
    assert np.abs(found - wanted).mean((1, 2, 3)).max() < 0.5
    middle = np.abs(found - wanted)[[one.times == 1 for one in chosen], 12:-12, 14:-14]
    assert middle.max() <= 2
