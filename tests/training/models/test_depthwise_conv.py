"""Depthwise convolutions in training: the gradients of `conv2d`, whatever the shortcut."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")

from catdog_edge.training.models.batch_norm import freeze_batch_norms
from catdog_edge.training.models.depthwise_conv import depthwise, is_depthwise
from catdog_edge.training.models.efficientnet_lite import Conv2dSame, ConvNormAct, InvertedResidual

pytestmark = pytest.mark.train


def _gradients(function, *inputs):
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    result = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    towards = torch.randn(result.shape, generator=generator).to(result.dtype)
    result.backward(towards)
    return result.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        (12, 3, 1, 1), (12, 5, 1, 2), (13, 3, 2, 0), (15, 5, 2, 0), (11, 5, 2, 2), (5, 5, 1, 2),
        (4, 5, 1, 2), (9, 7, 1, 3), (9, 3, 1, 0), (9, 5, 1, 0),
    ],
)  # fmt: skip
def test_answers_and_gradients_are_those_of_conv2d(side, kernel, stride, padding, dtype):
    torch.manual_seed(0)
    maps = torch.randn(3, 6, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 1, kernel, kernel, dtype=dtype), torch.randn(6, dtype=dtype)

    def plain(maps, weight, bias):
        return torch.nn.functional.conv2d(maps, weight, bias, stride, padding, 1, 6)

    answer, found = _gradients(lambda *one: depthwise(*one, stride, padding), maps, weight, bias)
    expected, wanted = _gradients(plain, *(one.float() for one in (maps, weight, bias)))
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    assert (answer.float() - expected).norm() <= rounding * expected.norm()
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).norm() <= rounding * other.norm()


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_gradient_is_laid_out_as_the_filter_is(kernel):
    """Otherwise processes that train together are warned about it, over many lines."""
    maps = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
    weight = torch.randn(8, 1, kernel, kernel).to(memory_format=torch.channels_last)
    weight.requires_grad_()
    depthwise(maps, weight, None, 1, kernel // 2).sum().backward()
    assert weight.grad.stride() == weight.stride() == (kernel**2, 1, kernel, 1)


def test_only_filters_of_single_channels_are_depthwise():
    maps = torch.zeros(1, 4, 8, 8)
    assert is_depthwise(torch.zeros(4, 1, 3, 3), maps, 4)
    assert not is_depthwise(torch.zeros(4, 4, 3, 3), maps, 1)
    assert not is_depthwise(torch.zeros(8, 1, 3, 3), maps, 4)  # two filters for each channel


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
        answer, (of_maps,) = _gradients(block, maps)
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
