from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from support.models.operations import Operations

from catdog_edge.training.config.recipes import RECIPES
from catdog_edge.training.engine.optim import (
    Muon,
    _iterate,
    align_gradients,
    make_optimizer,
    orthogonalize,
)
from catdog_edge.training.engine.weight_average import update_average
from catdog_edge.training.models.registry import architecture


@pytest.mark.parametrize("shape", [(16, 27), (48, 144), (128, 40), (32, 32)])
def test_an_update_becomes_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    result = orthogonalize([torch.randn(shape)])[0]
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_it_is_the_published_iteration() -> None:
    torch.manual_seed(1)
    matrix = torch.randn(12, 30, dtype=torch.float64)
    wanted = matrix / matrix.norm()
    for _ in range(4):
        gram = wanted @ wanted.T
        wanted = 3.4445 * wanted + (-4.7750 * gram + 2.0315 * gram @ gram) @ wanted
    torch.testing.assert_close(orthogonalize([matrix])[0], wanted, rtol=1e-5, atol=1e-6)


def test_matrices_are_iterated_together_as_one_by_one() -> None:
    torch.manual_seed(4)
    wide = torch.nn.functional.normalize(torch.randn(3, 12 * 30), dim=1).view(3, 12, 30)
    grams = wide @ wide.mT
    torch.testing.assert_close(_iterate(grams), torch.stack([*map(_iterate, grams)]))


def test_both_kinds_of_group_learn_and_adam_is_torchs() -> None:
    torch.manual_seed(2)
    kernel = torch.randn(8, 4, 3, 3, requires_grad=True)
    bias = torch.randn(8, requires_grad=True)
    twin = bias.detach().clone().requires_grad_()
    ours = Muon(
        [
            {"params": [kernel], "weight_decay": 0.0, "orthogonal": True},
            {"params": [bias], "weight_decay": 0.1, "orthogonal": False},
        ],
        lr=0.05,
        momentum=0.9,
    )
    theirs = torch.optim.AdamW([twin], lr=0.05, weight_decay=0.1, betas=(0.9, 0.99))
    target, scale = torch.randn(8, 4, 3, 3), torch.logspace(-9, 0, 8)  # epsilon counts, too
    first = (kernel - target).square().mean().item()
    for _ in range(50):
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
        ((kernel - target).square().mean() + (scale * bias.square()).sum()).backward()
        (scale * twin.square()).sum().backward()
        ours.step()
        theirs.step()
    assert (kernel - target).square().mean().item() < 0.7 * first
    torch.testing.assert_close(bias, twin)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_of_a_matrix_a_step_is_that_of_torchs_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    matrix = torch.randn(shape, requires_grad=True)
    twin = matrix.detach().clone().requires_grad_()
    groups = [{"params": [matrix], "weight_decay": 0.1, "orthogonal": True}]
    ours = Muon(groups, lr=0.02, momentum=0.9)
    theirs = torch.optim.Muon(
        [twin], lr=0.02, weight_decay=0.1, momentum=0.9, nesterov=True, ns_steps=4,
        ns_coefficients=(3.4445, -4.775, 2.0315), adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    before = matrix.detach().clone()
    for _ in range(5):
        gradient = torch.randn(shape)
        matrix.grad, twin.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    moved = (matrix - before).norm()
    assert (matrix - twin).norm() < 0.02 * moved, "theirs iterates in bfloat16"


def test_a_step_takes_few_operations() -> None:
    network, averaged = (architecture("edge_cnn").build(2) for _ in "ab")
    optimizer = make_optimizer(network, RECIPES["default"], 0.01)
    for one in network.parameters():
        one.grad = torch.ones_like(one)
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    assert len(operations.names) <= 305, "13 convolutions, 28 others"
    with Operations() as operations:
        update_average(averaged, network, 0.9)
    assert len(operations.names) == 2


def test_what_takes_orthogonal_steps_and_what_decays() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Flatten(),
        torch.nn.Linear(8, 6), torch.nn.Linear(6, 2),
    )  # fmt: skip
    recipe = RECIPES["default"]
    hidden, plain, small = make_optimizer(network, recipe, 0.1).param_groups
    assert [one.shape for one in hidden["params"]] == [(8, 3, 3, 3), (6, 8)]
    assert [one.shape for one in plain["params"]] == [(8, 1, 3, 3), (2, 6)]
    assert [one.ndim for one in small["params"]] == [1, 1, 1, 1]
    assert (hidden["orthogonal"], plain["orthogonal"], small["orthogonal"]) == (True, False, False)
    decays = [group["weight_decay"] for group in (hidden, plain, small)]
    assert decays == [recipe.weight_decay, recipe.weight_decay, 0.0]
    network[0].requires_grad_(False)
    assert len(make_optimizer(network, recipe, 0.1).param_groups[0]["params"]) == 1


def test_gradients_get_the_strides_of_their_parameters() -> None:
    last = torch.channels_last
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 8, 1), torch.nn.Conv2d(8, 2, 3)
    ).to(memory_format=last)
    for one in network.parameters():
        # As a kernel may leave them: contiguous.
        one.grad = torch.randn(one.shape)
    wanted = [one.grad.clone() for one in network.parameters()]
    assert network[0].weight.grad.stride() != network[0].weight.stride()
    align_gradients(network)
    for one, gradient in zip(network.parameters(), wanted, strict=True):
        assert one.grad.stride() == one.stride()
        assert torch.equal(one.grad, gradient)


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_a_learning_rate_in_a_tensor_is_the_same_rate(name: str) -> None:
    chosen = replace(RECIPES["default"], optimizer=name)
    networks = []
    for rates in ((0.01, 0.02), torch.tensor([0.01, 0.02])):
        torch.manual_seed(3)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 2, 1))
        optimizer = make_optimizer(network, chosen, rates[0])
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            network(torch.ones(1, 3, 5, 5)).square().sum().backward()
            optimizer.step()
        networks.append(torch.cat([one.flatten() for one in network.parameters()]))
    torch.testing.assert_close(*networks, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_on_the_cpu_the_optimizer_is_torchs_plain_one(name: str) -> None:
    recipe = replace(RECIPES["default"], optimizer=name)
    optimizer = make_optimizer(torch.nn.Linear(3, 2), recipe, 0.1)
    assert type(optimizer).__name__.lower() == name
    assert not optimizer.defaults["fused"], "whose sums differ"
