from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch; install [train]")
pytestmark = pytest.mark.train

from torch import nn

from catdog_edge.errors import ModelError
from catdog_edge.spec import Normalization
from catdog_edge.training.models.registry import (
    ARCHITECTURES,
    CENTRED,
    UNIT_RANGE,
    ResidualBlock,
    SimpleCNN,
    architecture,
)
from catdog_edge.training.models.summary import summarize_layers

# The known network as its table gives it: what comes out, and parameters.
FEATURES = [
    ((64, 222, 222), 1_792),
    ((64, 220, 220), 36_928),
    ((64, 110, 110), 0),
    ((64, 108, 108), 36_928),
    ((64, 54, 54), 0),
    ((32, 52, 52), 18_464),
    ((32, 26, 26), 0),
    ((32, 24, 24), 9_248),
    ((32, 12, 12), 0),
    ((32, 10, 10), 9_248),
    ((32, 5, 5), 0),
]
ORDER = "conv relu conv relu pool conv pool conv relu pool conv relu pool conv relu pool"
HEAD = "flatten linear relu linear relu linear"
WORDS = {
    nn.Conv2d: "conv",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.Flatten: "flatten",
    nn.Linear: "linear",
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


CENTRE, UNIT = (127.0,) * 3 + (128.0,) * 3, (0.0,) * 3 + (255.0,) * 3
IMAGENETS = (123.675, 116.28, 103.53, 58.395, 57.12, 57.375)  # 255 times torchvision's


@pytest.mark.parametrize(
    ("name", "size", "normalization", "recipe", "fixed", "parameters", "multiply_adds"),
    [
        ("edge_cnn", 128, CENTRE, "default", False, 1_104_594, 136_839_552),
        ("simple_cnn", 224, UNIT, "classic", True, 786_402, 2_356_104_960),
        ("mobilenet_v3_small", 224, IMAGENETS, "default", False, 1_519_906, 55_488_448),
        ("resnet18", 224, IMAGENETS, "default", False, 11_177_538, 1_813_562_368),
        ("efficientnet_b0", 224, IMAGENETS, "default", False, 4_010_110, 384_537_312),
        ("efficientnet_lite0", 224, CENTRE, "default", False, 3_373_570, 383_910_112),
        ("efficientnet_lite0_short", 192, CENTRE, "default", False, 2_421_250, 248_132_992),
        ("efficientnet_lite2", 260, CENTRE, "default", False, 4_813_634, 858_458_832),
    ],
)
def test_the_architectures_stay_as_they_were_measured(
    name: str, size: int, normalization: tuple[float, ...], recipe: str, fixed: bool,
    parameters: int, multiply_adds: int,
) -> None:  # fmt: skip
    entry = architecture(name)
    assert (entry.name, entry.size, entry.recipe, entry.fixed_size) == (name, size, recipe, fixed)
    assert (*entry.normalization.mean, *entry.normalization.std) == pytest.approx(normalization)
    network = entry.build(2)
    assert count(network) == parameters
    assert sum(row.multiply_adds for row in summarize_layers(network, size)) == multiply_adds


def test_simple_cnn_is_exactly_the_known_network() -> None:
    network = SimpleCNN(2)
    assert [WORDS[type(module)] for module in network.features] == ORDER.split()
    assert [WORDS[type(module)] for module in network.classifier] == HEAD.split()
    rows = summarize_layers(network, 224)
    shown = [
        (row.output, row.parameters)
        for row in rows
        if row.name.startswith("features") and "ReLU" not in row.kind
    ]
    assert shown == FEATURES
    linears = [row for row in rows if row.kind.startswith("Linear")]
    assert [(row.output, row.parameters) for row in linears] == [
        ((512,), 410_112),
        ((512,), 262_656),
        ((2,), 1_026),
    ]
    assert count(network) - linears[-1].parameters == 785_376
    assert count(network) == 786_402
    assert sum(row.multiply_adds for row in rows) == pytest.approx(2.36e9, abs=0.005e9)
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (0, 0))
        if isinstance(module, nn.MaxPool2d):
            assert (module.kernel_size, module.stride, module.padding) == (2, 2, 0)
    entry = architecture("simple_cnn")
    assert (entry.build, entry.size, entry.normalization) == (SimpleCNN, 224, UNIT_RANGE)


def test_simple_cnn_takes_other_numbers_of_classes() -> None:
    assert count(SimpleCNN(5)) == 785_376 + 5 * 513


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_entry_builds_and_gives_logits(name: str) -> None:
    entry = architecture(name)
    assert entry.name == name
    torch.manual_seed(0)
    network = entry.build(3).eval()
    pictures = torch.randn(2, 3, entry.size, entry.size)
    with torch.inference_mode():
        logits = network(pictures)
        again = network(pictures.contiguous(memory_format=torch.channels_last))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    # Logits, not probabilities, and not one answer for all pictures.
    assert not torch.allclose(logits.sum(1), torch.ones(2), atol=1e-3)
    assert not torch.equal(logits[0], logits[1])
    assert torch.allclose(logits, again, atol=1e-4)


@pytest.mark.parametrize("name", ["edge_cnn", "simple_cnn"])
def test_fresh_weights_follow_the_seed_and_differ(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(architecture(name).build(2).parameters()).detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_default_fits_a_small_device() -> None:
    entry = architecture("edge_cnn")
    network = entry.build(2)
    assert entry.normalization == CENTRED
    assert count(network) <= 1_500_000
    assert 4 * count(network) < 6e6
    # Plain operators alone: what the float kernels and the int8 kernels do fast.
    kinds = {type(module) for module in network.modules() if not list(module.children())}
    plain = {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
    assert kinds <= plain


def test_a_residual_block_adds_two_convolutions_and_begins_as_the_identity() -> None:
    maps, block = torch.rand(2, 8, 5, 5), ResidualBlock(8).eval()
    assert torch.equal(block(maps), maps)
    inner = maps
    for layer in (block.first, block.second):
        convolution, norm = layer
        nn.init.uniform_(norm.weight)
        inner = nn.functional.conv2d(torch.relu(inner), convolution.weight, padding=1)
        inner = nn.functional.batch_norm(
            inner, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
    torch.testing.assert_close(block(maps), torch.relu(maps + inner))


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("name", ["edge_cnn", "simple_cnn"])
def test_normalisation_folds_into_the_first_convolution_without_a_rest(name: str) -> None:
    """A convolution of raw 0..255 values, padded with the mean, equals the normalised one."""
    entry = architecture(name)
    torch.manual_seed(1)
    convolution = first_convolution(entry.build(2)).double()
    mean, std = entry.normalization.mean[0], entry.normalization.std[0]
    assert entry.normalization == Normalization((mean,) * 3, (std,) * 3)
    raw = torch.randint(0, 256, (2, 3, 33, 33)).double()
    with torch.inference_mode():
        wanted = convolution((raw - mean) / std)
        weight = convolution.weight / std
        bias = -mean * weight.sum(dim=(1, 2, 3))
        if convolution.bias is not None:
            bias = bias + convolution.bias
        pad = convolution.padding[0]
        padded = nn.functional.pad(raw, (pad,) * 4, value=mean)
        folded = nn.functional.conv2d(padded, weight, bias, convolution.stride)
        assert torch.allclose(folded, wanted, rtol=0, atol=1e-12 * 255)
        if pad:  # the pad matters: zeros would not do
            zeros = nn.functional.conv2d(raw, weight, bias, convolution.stride, pad)
            assert (zeros - wanted).abs().max() > 0.01
    assert mean == int(mean)  # so that the pad is a uint8


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="simple_cnn") as caught:
        architecture("lenet")
    assert "lenet" in str(caught.value)
    assert "\n" not in str(caught.value)
