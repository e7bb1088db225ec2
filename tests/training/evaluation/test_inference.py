"""Outputs of a network by hand and by `inference`."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="inference needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.spec import ModelSpec, squash
from catdog_edge.training.evaluation.inference import probabilities, to_input
from catdog_edge.training.evaluation.metrics import softmax
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
        logits = network(torch.from_numpy(by_hand.copy())).numpy()
    np.testing.assert_allclose(
        probabilities(network, spec, pixels), softmax(logits, 1.5), atol=1e-5
    )
