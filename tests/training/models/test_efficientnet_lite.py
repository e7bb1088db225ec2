"""EfficientNet-Lite: the published shapes, and what its layers do in training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from support.models.tiny_nets import gradients_of
from torch import nn

from catdog_edge.training.models.batch_norm import freeze_batch_norms
from catdog_edge.training.models.efficientnet_lite import (
    Conv2dSame,
    ConvNormAct,
    EfficientNetLite,
    InvertedResidual,
    _widened,
)
from catdog_edge.training.models.pretrained import PACKAGES
from catdog_edge.training.models.registry import CENTRED, architecture


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _settled(block):
    generator = torch.Generator().manual_seed(3)
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return block


def _as_written(layer, maps):
    """Convolution, batch norm and activation one after the other."""
    for part in layer:
        maps = part(maps)
    return maps


@pytest.mark.parametrize("stride", [1, 2])
def test_a_frozen_batch_norm_in_the_weights_changes_neither_answers_nor_gradients(
    stride, monkeypatch
):
    torch.manual_seed(0)
    block = _settled(InvertedResidual(8, 8, 5, stride, 3)).train()
    freeze_batch_norms(block)
    maps = torch.randn(2, 8, 14, 14).to(memory_format=torch.channels_last)

    def gradients():
        block.zero_grad()
        answer, (of_maps,) = gradients_of(block, maps)
        return answer, of_maps, {name: one.grad for name, one in block.named_parameters()}

    answer, of_maps, of_weights = gradients()
    monkeypatch.setattr(ConvNormAct, "forward", _as_written)
    expected, wanted_maps, wanted = gradients()
    assert torch.allclose(answer, expected, atol=1e-4)
    assert torch.allclose(of_maps, wanted_maps, atol=1e-3)
    assert len(wanted) == 9
    for name, gradient in wanted.items():
        assert torch.allclose(of_weights[name], gradient, atol=1e-3, rtol=1e-3), name


@pytest.mark.parametrize("stride", [1, 2])
def test_training_in_bfloat16_gives_the_gradients_of_the_layers_as_written(stride, monkeypatch):
    torch.manual_seed(0)
    block = _settled(InvertedResidual(8, 8, 5, stride, 3)).train()
    freeze_batch_norms(block)
    maps = torch.randn(2, 8, 14, 14).to(memory_format=torch.channels_last)

    def gradients(kind):
        block.zero_grad()
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            answer = block(maps)
        answer.float().square().mean().backward()
        return [one.grad.clone() for one in block.parameters()]

    found = gradients(torch.bfloat16)
    monkeypatch.setattr(ConvNormAct, "forward", _as_written)
    for one, other in zip(found, gradients(torch.float32), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.05 * other.norm() + 1e-4


def test_synchronised_batch_norms_can_be_frozen_too():
    torch.manual_seed(0)
    layer = _settled(ConvNormAct(Conv2dSame(3, 4, 3), torch.nn.BatchNorm2d(4, eps=1e-3))).train()
    maps = torch.randn(2, 3, 8, 8)
    freeze_batch_norms(layer)
    expected = layer(maps)
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(layer).train()
    freeze_batch_norms(synchronised)
    assert torch.allclose(synchronised(maps), expected, atol=1e-6)


def test_live_statistics_are_kept_up_to_date():
    torch.manual_seed(0)
    layer = ConvNormAct(
        Conv2dSame(3, 4, 3), torch.nn.BatchNorm2d(4, eps=1e-3), torch.nn.ReLU6()
    ).train()
    before = layer[1].running_mean.clone()
    layer(torch.randn(4, 3, 8, 8) + 1)
    assert not torch.equal(before, layer[1].running_mean)


@pytest.mark.parametrize(
    ("sides", "kernel", "stride", "around"),  # left, right, above, below, as TensorFlow pads
    [
        ((8, 8), 5, 2, (1, 2, 1, 2)), ((7, 8), 5, 2, (1, 2, 2, 2)), ((8, 7), 3, 2, (1, 1, 0, 1)),
        ((7, 9), 3, 1, (1, 1, 1, 1)), ((6, 6), 1, 2, (0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_a_convolution_is_padded_as_tensorflow_pads_it(
    sides: tuple[int, int], kernel: int, stride: int, around: tuple[int, int, int, int]
) -> None:
    layer, maps = Conv2dSame(2, 3, kernel, stride), torch.randn(1, 2, *sides)
    wanted = nn.functional.conv2d(nn.functional.pad(maps, around), layer.weight, stride=stride)
    assert wanted.shape[2:] == tuple(-(-side // stride) for side in sides)
    torch.testing.assert_close(layer(maps), wanted)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "groups", "training", "fast"),
    [(8, 5, 1, 4, True, True), (8, 3, 2, 4, True, True), (8, 3, 1, 4, False, False),
     (8, 3, 1, 1, True, False)],
)  # fmt: skip
def test_depthwise_convolutions_train_with_the_fast_gradients_on_a_cpu(
    size: int, kernel: int, stride: int, groups: int, training: bool, fast: bool
) -> None:
    layer = Conv2dSame(4, 4, kernel, stride, groups).train(training)
    found = layer(torch.rand(2, 4, size, size)).grad_fn
    assert (type(found).__name__ == "_DepthwiseBackward") is fast


def test_fresh_filters_keep_the_variance_of_the_maps() -> None:
    torch.manual_seed(0)
    for layer, terms in ((Conv2dSame(16, 64, 3), 64 * 9), (Conv2dSame(600, 600, 3, 1, 600), 9)):
        assert layer.bias is None
        assert layer.weight.std().item() == pytest.approx((2 / terms) ** 0.5, rel=0.05)


def test_widths_are_multiples_of_eight_and_hardly_narrower_than_asked_for() -> None:
    asked = {(32, 1.0): 32, (16, 1.1): 16, (40, 1.1): 48, (3, 1.0): 8, (11, 1.0): 16, (12, 1): 16}
    assert {one: _widened(*one) for one in asked} == asked


def test_only_blocks_with_a_skip_connection_can_be_left_out() -> None:
    with pytest.raises(ValueError, match="skip connection"):
        EfficientNetLite(2, 1.0, 1.0, 0.2, without=(5,))


@pytest.mark.parametrize(
    ("arch", "size", "parameters", "activations", "dropout"),
    [
        ("efficientnet_lite0", 224, 4_652_008, 33, 0.2),
        ("efficientnet_lite2", 260, 6_092_072, 43, 0.3),
    ],
)
def test_efficientnet_lite_is_the_published_network(
    arch: str, size: int, parameters: int, activations: int, dropout: float
) -> None:
    entry = architecture(arch)
    assert (entry.size, entry.normalization) == (size, CENTRED)
    network = entry.build(1000)
    assert isinstance(network, EfficientNetLite)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    modules = list(network.modules())
    assert [type(module) for module in modules].count(nn.ReLU6) == activations
    assert [module.p for module in modules if isinstance(module, nn.Dropout)] == [dropout]
    assert {module.eps for module in modules if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.slow
@pytest.mark.parametrize("arch", PACKAGES)
@pytest.mark.parametrize("size", [64, 75, 128, 161])
def test_efficientnet_lite_takes_any_size_and_learns(size: int, arch: str) -> None:
    torch.manual_seed(0)
    network = architecture(arch).build(2)
    maps = network.top(network.blocks(network.stem(torch.randn(2, 3, size, size))))
    assert maps.shape[2:] == (-(-size // 32),) * 2
    network(torch.randn(2, 3, size, size)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
