"""Distillation: whose answers, at which size, in which order of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import ModelError
from catdog_edge.spec import ModelSpec, Rejection, squash
from catdog_edge.training.config.recipes import recipe
from catdog_edge.training.engine.batches.loader import Batch
from catdog_edge.training.engine.distillation import Teacher, check_teacher_file, distillation_loss
from catdog_edge.training.evaluation.inference import logits
from catdog_edge.training.models.checkpoint import save_checkpoint
from catdog_edge.training.models.imagenet_head import (
    build_grouped,
    class_groups,
    set_group_temperature,
)
from catdog_edge.training.models.registry import architecture


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    arch = architecture("edge_cnn")
    spec = ModelSpec(
        architecture=arch.name, labels=("cat", "dog"), height=64, width=64,
        resize=squash(64, 64), normalization=arch.normalization,
    )  # fmt: skip
    torch.manual_seed(3)
    save_checkpoint(tmp_path / "teacher.pt", arch.build(2).state_dict(), spec)
    return tmp_path / "teacher.pt"


def taught(checkpoint: Path, labels: tuple[str, ...] = ("cat", "dog"), sha256: str = "") -> Teacher:
    return Teacher(checkpoint, labels, torch.device("cpu"), "float32", sha256)


def test_the_answer_is_that_of_the_network_averaged_over_the_mirrored_pair(
    checkpoint: Path,
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    teacher = taught(checkpoint)
    network, normalization = teacher._network, teacher.spec.normalization
    straight, mirrored = (
        logits(network, normalization, one) for one in (pixels, pixels[:, :, ::-1].copy())
    )
    answer = teacher.logits(torch.from_numpy(pixels)).numpy()
    assert np.allclose(answer, (straight + mirrored) / 2, atol=1e-5)
    assert not np.allclose(answer, straight, atol=1e-5)


def test_pictures_of_another_size_are_resized_to_the_teachers(checkpoint: Path) -> None:
    flat = np.full((1, 96, 96, 3), 90, np.uint8)
    same = np.full((1, 64, 64, 3), 90, np.uint8)
    teacher = taught(checkpoint)
    assert torch.allclose(
        teacher.logits(torch.from_numpy(flat)), teacher.logits(torch.from_numpy(same)), atol=1e-5
    )


def test_what_cannot_teach_is_named(checkpoint: Path) -> None:
    check_teacher_file(checkpoint)
    for name in ("model.onnx", "model.ORT"):
        with pytest.raises(ModelError, match="an exported file cannot be a teacher"):
            check_teacher_file(checkpoint.with_name(name))
    with pytest.raises(ModelError, match=r"name the best\.pt of a trained run"):
        check_teacher_file(checkpoint.parent)
    checkpoint.rename(best := checkpoint.with_name("best.pt"))
    with pytest.raises(ModelError, match=rf"is a folder, expected a \.pt; name {best}"):
        check_teacher_file(checkpoint.parent)


def test_every_pixel_of_a_larger_picture_counts(checkpoint: Path) -> None:
    striped = np.zeros((1, 192, 192, 3), np.uint8)
    striped[:, :, 1::3] = 255  # the middle of what becomes one pixel
    grey = np.full((1, 64, 64, 3), 85, np.uint8)
    teacher = taught(checkpoint)
    apart = teacher.logits(torch.from_numpy(striped)) - teacher.logits(torch.from_numpy(grey))
    assert apart.abs().max() < 0.02


def test_the_students_order_of_classes_counts(checkpoint: Path) -> None:
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    as_trained = taught(checkpoint).logits(pixels)
    turned = taught(checkpoint, ("dog", "cat")).logits(pixels)
    assert torch.equal(as_trained.flip(1), turned)


def test_other_classes_or_another_file_than_before_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"different classes .cat, dog against cat, fox"):
        taught(checkpoint, ("cat", "fox"))
    sha256 = taught(checkpoint).sha256
    taught(checkpoint, sha256=sha256)
    with pytest.raises(ModelError, match="another file than when the run began"):
        taught(checkpoint, sha256="0" * 64)


def test_a_teacher_that_knows_negatives_teaches_them_to_a_student_that_does(tmp_path: Path) -> None:
    arch = architecture("edge_cnn")
    spec = ModelSpec(
        architecture=arch.name, labels=("cat", "dog"), height=64, width=64,
        resize=squash(64, 64), normalization=arch.normalization,
        rejection=Rejection("known", 0.5),
    )  # fmt: skip
    torch.manual_seed(3)
    path = tmp_path / "teacher.pt"
    save_checkpoint(path, arch.build(3).state_dict(), spec)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    cpu = torch.device("cpu")
    both = Teacher(path, ("dog", "cat"), cpu, "float32", negatives=True)
    alone = Teacher(path, ("dog", "cat"), cpu, "float32")
    assert (both.knows_negatives, alone.knows_negatives) == (True, False)
    answers = both.logits(pixels)
    assert answers.shape == (2, 3)
    assert torch.equal(answers[:, :2], alone.logits(pixels))
    network = both._network
    wanted = [
        logits(network, spec.normalization, one)[:, 2]
        for one in (pixels.numpy(), pixels.numpy()[:, :, ::-1].copy())
    ]
    assert np.allclose(answers[:, 2], sum(wanted) / 2, atol=1e-5)
    straight = both.logits(pixels, mirrored=False)
    assert np.allclose(straight[:, 2], wanted[0], atol=1e-5)


def test_the_loss_is_zero_where_both_agree_and_grows_apart() -> None:
    one = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    assert distillation_loss(one, one, 2.0).item() == pytest.approx(0, abs=1e-7)
    other = torch.tensor([[2.0, -2.0], [0.5, 2.0]])
    p, q = torch.softmax(other / 2, 1), torch.softmax(one / 2, 1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert distillation_loss(one, other, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("knows_negatives", [False, True])
def test_of_pictures_of_no_class_the_label_alone_counts(
    tmp_path: Path, knows_negatives: bool
) -> None:
    arch = architecture("edge_cnn")
    spec = ModelSpec(
        architecture=arch.name, labels=("cat", "dog"), height=32, width=32,
        resize=squash(32, 32), normalization=arch.normalization,
        rejection=Rejection("known", 0.5) if knows_negatives else None,
    )  # fmt: skip
    torch.manual_seed(5)
    path = tmp_path / "teacher.pt"
    save_checkpoint(path, arch.build(3 if knows_negatives else 2).state_dict(), spec)
    teacher = Teacher(path, ("cat", "dog"), torch.device("cpu"), "float32", negatives=True)
    chosen = replace(recipe("distil"), norms="built", views=0)
    criterion = torch.nn.CrossEntropyLoss()
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 2, 1, 1])
    outputs = torch.randn(4, 3)
    said = teacher.logits(pixels[[0, 2, 3]], chosen.distillation_mirrored)
    own = outputs[[0, 2, 3]] if knows_negatives else outputs[[0, 2, 3], :2]
    wanted = 0.75 * distillation_loss(own, said, chosen.distillation_temperature)
    wanted += 0.25 * criterion(outputs[[1]], labels[[1]])
    found = teacher.loss(Batch(pixels, labels, pixels), outputs, criterion, chosen, (0, 0))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    again = teacher.loss(Batch(pixels, labels, pixels.flip(0)), outputs, criterion, chosen, (0, 0))
    assert again != found, "without views each batch is answered anew"
    viewed = replace(chosen, views=2)
    first = teacher.loss(Batch(pixels, labels, pixels), outputs, criterion, viewed, (0, 2))
    again = teacher.loss(Batch(pixels, labels, pixels.flip(0)), outputs, criterion, viewed, (0, 2))
    assert first == again == found
    positive = Batch(pixels, labels[[0, 2, 3]], pixels[[0, 2, 3]])
    found = teacher.loss(positive, outputs[[0, 2, 3]], criterion, chosen, (0, 1))
    wanted = distillation_loss(own, said, chosen.distillation_temperature)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_teacher_with_categories_teaches_these_and_sees_a_repeated_view_once(
    tmp_path: Path,
) -> None:
    name = "efficientnet_lite0_short"
    spec = ModelSpec(
        architecture=name, labels=("cat", "dog"), height=32, width=32, resize=squash(32, 32),
        normalization=architecture(name).normalization, rejection=Rejection("known", 0.5),
    )  # fmt: skip
    torch.manual_seed(5)
    network = build_grouped(name, (2, 3, 4))
    save_checkpoint(tmp_path / "teacher.pt", network.state_dict(), spec)
    teacher = Teacher(tmp_path / "teacher.pt", ("cat", "dog"), torch.device("cpu"), "float32")
    groups = class_groups(network)
    assert teacher.teaches_categories(groups)
    assert not teacher.teaches_categories(None)
    turned = Teacher(tmp_path / "teacher.pt", ("dog", "cat"), torch.device("cpu"), "float32")
    assert not turned.teaches_categories(groups)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    batch = Batch(pixels, torch.tensor([0, 1, 2]), pixels)
    chosen = replace(recipe("fast"), views=2)
    found = teacher.targets(batch, chosen, (0, 0))
    assert found.shape == (3, 9)
    assert groups is not None
    said = logits(network, spec.normalization, pixels.numpy())
    assert np.allclose(groups(found).detach(), said, atol=1e-4)
    other = Batch(pixels.flip(0), batch.labels, pixels.flip(0))
    assert torch.allclose(teacher.targets(other, chosen, (0, 0)), found, atol=1e-2)
    assert not torch.allclose(teacher.targets(other, chosen, (1, 0)), found, atol=1e-2)
    set_group_temperature(network, 0.5)
    save_checkpoint(tmp_path / "sharp.pt", network.state_dict(), spec)
    sharp = Teacher(tmp_path / "sharp.pt", ("cat", "dog"), torch.device("cpu"), "float32")
    assert torch.allclose(sharp.targets(batch, chosen, (0, 0)), found, atol=1e-2)
