from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.optim import ITERATIONS, Muon, orthogonalize


@pytest.mark.parametrize("shape", [(16, 27), (48, 144), (128, 40), (32, 32)])
def test_an_update_becomes_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    result = orthogonalize(torch.randn(shape))
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_it_is_the_published_iteration() -> None:
    torch.manual_seed(1)
    matrix = torch.randn(12, 30, dtype=torch.float64)
    wanted = matrix / matrix.norm()
    for _ in range(ITERATIONS):
        gram = wanted @ wanted.T
        wanted = 3.4445 * wanted + (-4.7750 * gram + 2.0315 * gram @ gram) @ wanted
    torch.testing.assert_close(orthogonalize(matrix), wanted, rtol=1e-5, atol=1e-6)


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
    target = torch.randn(8, 4, 3, 3)
    first = (kernel - target).square().mean().item()
    for _ in range(50):
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
        ((kernel - target).square().mean() + bias.square().sum()).backward()
        twin.square().sum().backward()
        ours.step()
        theirs.step()
    assert (kernel - target).square().mean().item() < 0.7 * first
    torch.testing.assert_close(bias, twin)
