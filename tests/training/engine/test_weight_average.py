from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.weight_average import update_average


def test_the_average_is_exponential_and_takes_the_statistics_along() -> None:
    torch.manual_seed(4)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).train()
    averaged = copy.deepcopy(network).eval()
    weights = [network[0].weight.detach().clone()]
    for _ in range(3):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(2, 3))
        network(torch.randn(8, 3))
        weights.append(network[0].weight.detach().clone())
        update_average(averaged, network, 0.8)
    expected = 0.8**3 * weights[0] + 0.2 * (0.64 * weights[1] + 0.8 * weights[2] + weights[3])
    torch.testing.assert_close(averaged[0].weight, expected)
    assert averaged[1].num_batches_tracked == network[1].num_batches_tracked == 3
    assert not torch.equal(averaged[1].running_mean, network[1].running_mean)
