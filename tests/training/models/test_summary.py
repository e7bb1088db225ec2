from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch; install [train]")
pytestmark = pytest.mark.train

from torch import nn

from catdog_edge.errors import ModelError
from catdog_edge.training.models.registry import ARCHITECTURES, architecture
from catdog_edge.training.models.summary import architecture_table, summarize_layers


def test_the_table_of_the_known_network() -> None:
    lines = architecture_table("simple_cnn").splitlines()
    assert lines[0].startswith("simple_cnn: ")
    assert "3x224x224" in lines[1]
    cells = [line.split() for line in lines]
    first = next(row for row in cells if row[:1] == ["features.0"])
    assert first[-3:] == ["64x222x222", "1,792", "85,162,752"]
    linear = next(row for row in cells if row[:1] == ["classifier.1"])
    assert linear[-3:] == ["512", "410,112", "409,600"]
    total = next(row for row in cells if row[:1] == ["total"])
    assert total[-2:] == ["786,402", "2,356,104,960"]
    assert "2.36 G multiply-adds" in lines[-1]
    assert "3.15 MB" in lines[-1]


def test_the_columns_stand_under_their_headers() -> None:
    lines = architecture_table("simple_cnn", classes=4).splitlines()
    header = next(line for line in lines if line.startswith("name"))
    row = next(line for line in lines if line.startswith("features.10 "))
    assert row.index("Conv2d") == header.index("layer")
    assert row.index("32x24x24") == header.index("output")
    assert row.index("9,248") + len("9,248") == header.index("parameters") + len("parameters")
    assert len(row) == len(header)
    assert max(len(line) for line in lines) <= 100
    assert any(line.split()[:3] == ["total", "4", "classes"] for line in lines)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_parameters_of_the_layers_add_up(name: str) -> None:
    entry = architecture(name)
    network = entry.build(2)
    network.train()
    before = [value.clone() for value in network.state_dict().values()]
    rows = summarize_layers(network, entry.size)
    assert sum(row.parameters for row in rows) == sum(
        parameter.numel() for parameter in network.parameters()
    )
    assert sum(row.multiply_adds for row in rows) > 1e7
    assert rows[-1].output == (2,)
    # Looking does not change the network: mode, running figures, hooks.
    assert network.training
    assert all(
        torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True)
    )
    assert not any(module._forward_hooks for module in network.modules())


def test_multiply_adds_of_grouped_and_strided_convolutions() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8x5x5 out, 27 each
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # 8x5x5 out, 9 each
        nn.Flatten(),
        nn.Linear(200, 2),
    )
    rows = summarize_layers(network, 10)
    assert [row.multiply_adds for row in rows] == [200 * 27, 200 * 9, 0, 400]
    assert [row.kind for row in rows] == [
        "Conv2d 3-8, 3x3, stride 2",
        "Conv2d 8-8, 3x3, groups 8",
        "Flatten",
        "Linear 200-2",
    ]


def test_an_unknown_architecture_is_one_line() -> None:
    with pytest.raises(ModelError, match="there is no architecture 'nope'"):
        architecture_table("nope")
