"""Batch norms that come and go: folded into convolutions, or frozen."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from torch import nn

from catdog_edge.training.models.batch_norm import (
    ConvBatchNorm,
    add_batch_norms,
    fold_batch_norms,
    freeze_batch_norms,
    freeze_features,
    fuse_batch_norms,
)
from catdog_edge.training.models.registry import architecture


def awake(network: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights of their own, as after training."""
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                value.data.uniform_(low, low + 1, generator=generator)
    return network.eval()


@pytest.mark.slow
def test_simple_cnn_with_norms_folds_back_into_itself() -> None:
    network = architecture("simple_cnn").build(2)
    normed = awake(add_batch_norms(network))
    assert sum(isinstance(one, ConvBatchNorm) for one in normed.modules()) == 6
    plain = fold_batch_norms(normed)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(plain(pictures), normed(pictures), atol=1e-5)
        assert not torch.allclose(network.eval()(pictures), normed(pictures), atol=1e-3)


def test_a_network_with_norms_of_its_own_gets_no_others() -> None:
    network = add_batch_norms(architecture("edge_cnn").build(2))
    assert not any(isinstance(one, ConvBatchNorm) for one in network.modules())


def test_frozen_norms_keep_their_statistics() -> None:
    network = architecture("edge_cnn").build(2).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    freeze_batch_norms(network)
    network(torch.rand(4, 3, 64, 64))
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())
    network.train()
    network(torch.rand(4, 3, 64, 64))
    assert not all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


def test_frozen_features_leave_the_last_layer_to_learn() -> None:
    network = architecture("simple_cnn").build(3)
    freeze_features(network)
    learning = [name for name, one in network.named_parameters() if one.requires_grad]
    assert learning == ["classifier.5.weight", "classifier.5.bias"]
    with pytest.raises(ValueError, match="linear layer"):
        freeze_features(nn.Conv2d(3, 4, 1))


def test_simple_cnn_takes_smaller_pictures_while_it_trains() -> None:
    network = architecture("simple_cnn").build(2).eval()
    for size in (112, 128, 160, 224):
        assert network(torch.rand(1, 3, size, size)).shape == (1, 2)


@pytest.mark.slow
def test_a_fused_network_answers_as_before_without_batch_norms() -> None:
    torch.manual_seed(0)
    network = architecture("efficientnet_lite0_short").build(2)
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            network(frames)  # statistics of their own
        network.eval()
        plain = fuse_batch_norms(network)
        assert torch.allclose(plain(frames), network(frames), atol=1e-4)
    kinds = [type(module) for module in plain.modules()]
    assert nn.BatchNorm2d not in kinds
    assert [type(module) for module in network.modules()].count(nn.BatchNorm2d) == 43
