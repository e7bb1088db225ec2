"""Depthwise convolutions in training: the gradients of `conv2d`, whatever the shortcut."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")

from support.models.tiny_nets import gradients_of

from catdog_edge.training.models import depthwise_conv
from catdog_edge.training.models.depthwise_conv import depthwise, is_depthwise

pytestmark = pytest.mark.train


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

    answer, found = gradients_of(lambda *one: depthwise(*one, stride, padding), maps, weight, bias)
    expected, wanted = gradients_of(plain, *(one.float() for one in (maps, weight, bias)))
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


@pytest.mark.parametrize(("kernel", "calls"), [(3, 1), (5, 4), (7, 1)])
def test_filters_of_five_by_five_are_learnt_as_four_of_three_by_three(kernel, calls, monkeypatch):
    """oneDNN is slow with them, see the module."""
    seen, backward = [], depthwise_conv._backward

    def noted(gradient, maps, weight, *more):
        seen.append(weight.shape[2])
        return backward(gradient, maps, weight, *more)

    monkeypatch.setattr(depthwise_conv, "_backward", noted)
    weight = torch.randn(4, 1, kernel, kernel, requires_grad=True)
    depthwise(torch.randn(2, 4, 9, 9), weight, None, 1, kernel // 2).sum().backward()
    assert seen == [3 if kernel == 5 else kernel] * calls


def test_only_filters_of_single_channels_are_depthwise():
    maps = torch.zeros(1, 4, 8, 8)
    assert is_depthwise(torch.zeros(4, 1, 3, 3), maps, 4)
    assert not is_depthwise(torch.zeros(4, 4, 3, 3), maps, 1)
    assert not is_depthwise(torch.zeros(8, 1, 3, 3), maps, 4)  # two filters for each channel
