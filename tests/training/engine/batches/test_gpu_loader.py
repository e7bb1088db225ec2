"""Batches that are made on a device: those of `BatchLoader`, wherever the images are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from support.models.operations import Operations

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec, Rejection, squash
from catdog_edge.training.config.recipes import recipe
from catdog_edge.training.data.negatives import NegativeSampler, draw_empty_scene
from catdog_edge.training.engine.batches import gpu_loader
from catdog_edge.training.engine.batches.gpu_loader import GpuBatchLoader, augments_on
from catdog_edge.training.engine.batches.loader import Batch, BatchLoader
from catdog_edge.training.engine.distillation import Teacher, distillation_loss
from catdog_edge.training.engine.loss import CrossEntropy
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.models.checkpoint import save_checkpoint
from catdog_edge.training.models.registry import architecture

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
    here = epoch(GpuBatchLoader(**settings(images)))
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
    whole, rest = (epoch(GpuBatchLoader(**settings(images)), first) for first in (0, 2))
    for one, again in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, again))


def test_processes_share_a_batch(images: np.ndarray) -> None:
    chosen = settings(images)
    whole = epoch(GpuBatchLoader(**chosen))
    parts = [epoch(GpuBatchLoader(**chosen, rank=rank, processes=2)) for rank in range(2)]
    own = (whole[0].labels < 2).sum()
    for rank, part in enumerate(parts):
        for tensor, mine in zip(whole[0], part[0], strict=True):
            assert torch.equal(torch.cat([tensor[:own][rank::2], tensor[own:][rank::2]]), mine)


def test_images_that_do_not_fit_are_uploaded_batch_by_batch(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes, 0))
    assert gpu_loader.resident([images], torch.device("cuda")) is None
    fitting = epoch(GpuBatchLoader(**settings(images)))
    monkeypatch.setattr(gpu_loader, "resident", lambda sets, device: None)
    with caplog.at_level("INFO"):
        uploaded = epoch(GpuBatchLoader(**settings(images)))
    assert "the training images (0.0 GB) do not fit into the memory of cpu" in caplog.text
    for one, other in zip(fitting, uploaded, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other))


@pytest.mark.parametrize("chunk", [1, 2**28])
def test_rows_are_counted_over_all_sets(
    images: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_loader, "CHUNK", chunk)
    sets, cpu = [images[:5], images[5:5], images[20:27]], torch.device("cpu")
    whole, rows = np.concatenate(sets), np.array([0, 4, 5, 11, 6])
    there = gpu_loader.DeviceImages(sets, cpu)
    assert there.starts.tolist() == [0, 5, 5, 12]
    assert np.array_equal(gpu_loader.resident(sets, cpu).numpy(), whole)
    monkeypatch.setattr(gpu_loader, "resident", lambda sets, device: None)
    uploaded = gpu_loader.DeviceImages(sets, cpu).prepare(rows)
    assert np.array_equal(uploaded["pixels"], whole[rows])
    sent = {name: torch.from_numpy(one) for name, one in there.prepare(rows).items()}
    assert np.array_equal(there.take(sent).numpy(), whole[rows])


def test_drawings_alone_and_beside_photographs(images: np.ndarray) -> None:
    for photographs in (images[:0], images[60:]):
        negatives = NegativeSampler(photographs, 2, 0.4, drawn=1.0)
        loader = GpuBatchLoader(**settings(images, negatives=negatives, policy="none"))
        made = torch.cat([batch.detailed[batch.labels == 2] for batch in epoch(loader)])
        drawings = {
            one.numpy().tobytes() for one in loader._images._copied[loader._images.starts[2] :]
        }
        assert len(drawings) == 512
        first = draw_empty_scene(SIDE, SIDE, np.random.default_rng([3, 0, 0, 4, 0]))
        assert first.tobytes() in drawings
        assert {one.numpy().tobytes() for one in made} <= drawings


@pytest.mark.parametrize(
    ("policy", "most", "most_with_negatives"),
    [("classic", 13, 20), ("default", 21, 28), ("camera", 37, 44)],
)
def test_a_batch_takes_few_operations_and_waits_for_none(
    images: np.ndarray, policy: str, most: int, most_with_negatives: int
) -> None:
    for negatives, limit in (({"negatives": None}, most), ({}, most_with_negatives)):
        chosen = settings(images, policy=policy, detail=1.0, batch_size=60, **negatives)
        loader = GpuBatchLoader(**chosen)
        for first in range(2):  # the first batch makes tables, which are kept
            complete = loader._prepare(np.arange(60), 0, 0, 1.0)
            with Operations() as operations:
                complete()
            assert first == 0 or len(operations.names) <= limit, operations.names
        assert not {"_local_scalar_dense", "nonzero"} & set(operations.names)


def test_where_images_are_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 1)
    monkeypatch.delenv(gpu_loader.VARIABLE, raising=False)
    assert (augments_on(cpu), augments_on(cuda)) == (False, True)
    monkeypatch.setenv(gpu_loader.VARIABLE, "device")
    assert augments_on(cpu)
    monkeypatch.setenv(gpu_loader.VARIABLE, "cpu")
    assert not augments_on(cuda)
    monkeypatch.setenv(gpu_loader.VARIABLE, "gpu")
    with pytest.raises(CatdogError, match="give cpu or device"):
        augments_on(cuda)


def trainer(
    images: np.ndarray, folder: Path, teacher: Teacher | None = None, device: str = "cpu",
    name: str = "distil", epochs: int = 2,
) -> Trainer:  # fmt: skip
    arch = architecture("edge_cnn")
    size = round(SIDE / 1.5) * 2
    spec = ModelSpec(
        architecture=arch.name, labels=("cat", "dog"), height=size, width=size,
        resize=squash(size, size), normalization=arch.normalization,
        rejection=Rejection("known", 0.5),
    )  # fmt: skip
    chosen = replace(
        recipe(name), views=0, batch_size=16, detail=1.5, lr=0.01, pretrained=False,
        norms="built",
    )  # fmt: skip
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    loading = settings(large)
    data = TrainingData(
        (large[:60], loading["labels"]), (large[:8, :size, :size], loading["labels"][:8]),
        loading["negatives"], loading["shares"],
    )  # fmt: skip
    plan = Plan(
        recipe=chosen, epochs=epochs, batch_size=16, lr=chosen.lr, seed=5, patience=0,
        precision="float32", device=device,
    )  # fmt: skip
    torch.manual_seed(0)
    return Trainer(arch.build(3), spec, plan, data, folder, teacher)


def killed(now: bool) -> bool:
    if now:
        raise InterruptedError
    return False


def weights(trained: Trainer) -> torch.Tensor:
    return torch.cat([one.flatten() for one in trained.averaged.state_dict().values()])


@pytest.mark.slow
def test_a_run_repeats_itself_and_a_resumed_one_goes_on(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpu_loader.VARIABLE, "device")
    silent = (lambda _: None, lambda *_: None)
    first = trainer(images, tmp_path)
    assert isinstance(first._loader, GpuBatchLoader)
    teacher = Teacher(taught(first, tmp_path), ("cat", "dog"), first.device, "float32", "", True)
    whole, cut, again = (trainer(images, tmp_path, teacher) for _ in range(3))
    cut._interval = again._interval = 1e9  # as on a GPU, which is rarely asked for the sums
    assert whole.run(lambda: False, *silent)
    monkeypatch.setattr("catdog_edge.training.engine.trainer.SAVE_INTERVAL", 0.0)
    with pytest.raises(InterruptedError):
        cut.run(lambda: killed(cut.step == 2), *silent)
    again.restore(tmp_path / "last.pt")
    assert again.step == 2
    assert again.run(lambda: False, *silent)
    assert torch.equal(weights(whole), weights(again))
    losses, seldom = ([one.train_loss for one in run.history] for run in (whole, again))
    assert seldom == pytest.approx(losses, rel=1e-12)


def taught(trained: Trainer, folder: Path) -> Path:
    save_checkpoint(folder / "teacher.pt", trained.network.state_dict(), trained.spec)
    return folder / "teacher.pt"


def test_the_teacher_answers_the_images_of_the_batch(images: np.ndarray, tmp_path: Path) -> None:
    student = trainer(images, tmp_path)
    teacher = Teacher(taught(student, tmp_path), ("cat", "dog"), student.device, "float32")
    batch = epoch(GpuBatchLoader(**settings(images.repeat(2, axis=1).repeat(2, axis=2))))[0]
    own = batch.labels < 2
    outputs = torch.randn(len(own), 3)
    answers = teacher.logits(batch.detailed[own], mirrored=False)
    criterion, share = CrossEntropy(0.0), own.float().mean()
    wanted = share * distillation_loss(outputs[own][:, :2], answers, 2.0)
    wanted += (1 - share) * criterion(outputs[~own], batch.labels[~own])
    found = teacher.loss(batch, outputs, criterion, student.plan.recipe, (0, 0))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize(("policy", "most"), [("classic", 2), ("camera", 3)])
def test_batches_of_a_gpu_are_those_of_the_cpu(images: np.ndarray, policy: str, most: int) -> None:
    chosen = settings(images, policy=policy)
    here = epoch(GpuBatchLoader(**chosen, device=torch.device("cuda")))
    there = epoch(GpuBatchLoader(**chosen))
    for one, other in zip(here, there, strict=True):
        assert one.pixels.is_cuda
        assert torch.equal(one.labels.cpu(), other.labels)
        apart = (one.pixels.cpu().float() - other.pixels.float()).abs()
        assert apart.mean() < 0.1
        assert apart.max() <= most


@pytest.mark.cuda
@cuda
def test_a_run_on_a_gpu_repeats_itself_and_learns(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    found = []
    for _ in range(2):
        trained = trainer(images, tmp_path, None, "cuda", "default", epochs=6)
        assert trained.run(lambda: False, lambda _: None, lambda *_: None)
        found.append(torch.cat([one.flatten() for one in trained.network.parameters()]))
    assert torch.equal(*found)
    assert trained.history[-1].train_loss < trained.history[0].train_loss
