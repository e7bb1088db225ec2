"""Outputs of a network by hand and by `inference`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="inference needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import DataError, ModelError
from catdog_edge.spec import ModelSpec, Rejection, squash
from catdog_edge.training.evaluation.inference import (
    EvaluatedModel,
    check_labels,
    logits,
    probabilities,
    to_input,
)
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.models.checkpoint import save_checkpoint
from catdog_edge.training.models.registry import CENTRED, architecture

SPEC = ModelSpec(
    architecture="edge_cnn", labels=("cat", "dog"), height=32, width=32, resize=squash(32, 32),
    normalization=CENTRED, temperature=1.5,
)  # fmt: skip


def test_the_reference_answer_is_what_the_spec_says() -> None:
    torch.manual_seed(0)
    spec, network = SPEC, architecture("edge_cnn").build(2).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (2, *spec.size, 3), dtype=np.uint8)
    mean, std = np.float32(spec.normalization.mean), np.float32(spec.normalization.std)
    by_hand = ((pixels[..., ::-1].astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    inputs = to_input(torch.from_numpy(pixels), spec.normalization)
    np.testing.assert_allclose(inputs.numpy(), by_hand, atol=1e-6)
    with torch.inference_mode():
        values = network(torch.from_numpy(by_hand.copy())).numpy()
    np.testing.assert_allclose(
        probabilities(network, spec, pixels), softmax(values, 1.5), atol=1e-5
    )


@pytest.mark.parametrize(("device", "most"), [("cpu", 64), ("cuda:0", 128)])
def test_images_pass_in_batches_and_the_network_keeps_its_mode(device: str, most: int) -> None:
    seen: list[tuple[int, bool]] = []

    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((len(images), self.training))
            return images.mean((2, 3))

    network = Means().train()
    pixels = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 4, 4, 3)
    values = logits(network, CENTRED, pixels, device)  # a tensor stays where it is
    assert [count for count, _ in seen] == [*[most] * (200 // most), 200 % most]
    assert {mode for _, mode in seen} == {False}
    assert network.training
    np.testing.assert_allclose(values[:, 1], (np.arange(200) - 127) / 128, atol=1e-6)


def test_data_needs_the_labels_of_the_model_in_its_order() -> None:
    check_labels(SPEC, ("cat", "dog"), Path("best.pt"), "pets.zip")
    for labels in (("dog", "cat"), ("cat", "fox")):
        with pytest.raises(DataError, match=r"best\.pt and pets\.zip have different classes"):
            check_labels(SPEC, labels, Path("best.pt"), "pets.zip")


@pytest.mark.parametrize(
    "rejection", [None, Rejection("known", 0.5), Rejection("max_probability", 0.7)]
)
def test_scores_of_a_checkpoint(tmp_path: Path, rejection: Rejection | None) -> None:
    spec = SPEC.replace(rejection=rejection)
    torch.manual_seed(0)
    network = architecture("edge_cnn").build(spec.logits).eval()
    save_checkpoint(tmp_path / "best.pt", network.state_dict(), spec)
    model = EvaluatedModel(tmp_path / "best.pt")
    pixels = np.random.default_rng(1).integers(0, 256, (3, *spec.size, 3), dtype=np.uint8)
    values = logits(network, spec.normalization, pixels)
    best = softmax(values[:, :2], 1.5).max(axis=1)
    knows = rejection is not None and rejection.score == "known"
    wanted = softmax(values)[:, :2].sum(axis=1) if knows else best
    np.testing.assert_allclose(model.scores(pixels), wanted, atol=1e-5)
    np.testing.assert_allclose(model.probabilities(pixels).max(axis=1), best, atol=1e-5)
    with pytest.raises(ModelError, match="there is no file"):
        EvaluatedModel(tmp_path / "none.pt")
