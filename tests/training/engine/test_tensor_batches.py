"""Batches that are made on a device: those of `BatchLoader`, wherever the images are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError
from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine import tensor_batches
from catdog_edge.training.engine.batches import Batch, BatchLoader
from catdog_edge.training.engine.tensor_batches import TensorBatchLoader, augments_on

SIDE = 24


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (90, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def settings(images: np.ndarray, **more: object) -> dict[str, object]:
    shares = np.linspace(1, 3, 60)
    negatives = NegativeSampler(images[60:], 2, 0.4, images[:60], 0.3, drawn=0.0)
    return {
        "pixels": images[:60], "labels": np.arange(60) % 2, "batch_size": 16, "policy": "camera",
        "seed": 3, "detail": 1.5, "shares": shares / shares.sum(), "negatives": negatives, **more,
    }  # fmt: skip


def epoch(loader: BatchLoader, first_step: int = 0) -> list[Batch]:
    return list(loader.epoch(2, first_step, (0.75, 1.0)))


def test_they_are_those_of_opencv(images: np.ndarray) -> None:
    here = epoch(TensorBatchLoader(**settings(images)))
    there = epoch(BatchLoader(**settings(images)))
    assert len(here) == len(there) == 4
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert one.pixels.shape == other.pixels.shape
        for mine, theirs in ((one.pixels, other.pixels), (one.detailed, other.detailed)):
            apart = (mine.float() - theirs.float()).abs().mean((1, 2, 3))
            assert apart.median() < 0.5
            assert (apart < 2).float().mean() > 0.7  # the others have noise
    assert sum((one.labels == 2).sum() for one in here) == sum(
        round(0.4 * count) for count in (16, 16, 16, 12)
    )


def test_an_interrupted_epoch_goes_on_with_the_very_batches(images: np.ndarray) -> None:
    whole, rest = (epoch(TensorBatchLoader(**settings(images)), first) for first in (0, 2))
    for one, again in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, again))


def test_processes_share_a_batch(images: np.ndarray) -> None:
    # Without noise, of which each process draws its own.
    chosen = settings(images, policy="classic")
    whole = epoch(TensorBatchLoader(**chosen))
    parts = [epoch(TensorBatchLoader(**chosen, rank=rank, processes=2)) for rank in range(2)]
    own = (whole[0].labels < 2).sum()
    for rank, part in enumerate(parts):
        for tensor, mine in zip(whole[0], part[0], strict=True):
            assert torch.equal(torch.cat([tensor[:own][rank::2], tensor[own:][rank::2]]), mine)


def test_images_that_do_not_fit_are_uploaded_batch_by_batch(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fitting = epoch(TensorBatchLoader(**settings(images)))
    monkeypatch.setattr(tensor_batches, "resident", lambda pixels, device: None)
    with caplog.at_level("INFO"):
        uploaded = epoch(TensorBatchLoader(**settings(images)))
    assert "the training images (0.0 GB) do not fit into the memory of cpu" in caplog.text
    for one, other in zip(fitting, uploaded, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other))


def test_drawings_alone_and_beside_photographs(images: np.ndarray) -> None:
    for photographs in (images[:0], images[60:]):
        negatives = NegativeSampler(photographs, 2, 0.4, drawn=1.0)
        loader = TensorBatchLoader(**settings(images, negatives=negatives, policy="none"))
        made = torch.cat([batch.detailed[batch.labels == 2] for batch in epoch(loader)])
        drawings = {one.numpy().tobytes() for one in loader._drawings._copied}
        assert len(drawings) == tensor_batches.DRAWINGS
        assert {one.numpy().tobytes() for one in made} <= drawings


def test_where_images_are_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 1)
    monkeypatch.delenv(tensor_batches.VARIABLE, raising=False)
    assert (augments_on(cpu), augments_on(cuda)) == (False, True)
    monkeypatch.setenv(tensor_batches.VARIABLE, "device")
    assert augments_on(cpu)
    monkeypatch.setenv(tensor_batches.VARIABLE, "cpu")
    assert not augments_on(cuda)
    monkeypatch.setenv(tensor_batches.VARIABLE, "gpu")
    with pytest.raises(CatdogError, match="give cpu or device"):
        augments_on(cuda)
