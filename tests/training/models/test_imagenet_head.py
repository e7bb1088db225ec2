"""The head that adds ImageNet's categories up to classes."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.spec import ModelSpec, Rejection, squash
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.imagenet_head import (
    IMAGENET_GROUPS,
    ClassGroups,
    build_grouped,
    calibrate_known,
    class_groups,
    imagenet_groups,
    pretrained_grouped,
    set_group_temperature,
    ungrouped_reason,
    without_groups,
)
from catdog_edge.training.models.pretrained import imagenet_state
from catdog_edge.training.models.registry import CENTRED, architecture

NAMES = {  # the first and the last category of each range, by torchvision's names
    "bear": "brown bear, sloth bear",
    "bird": "cock, great grey owl, black grouse, black swan, white stork, albatross",
    "cat": "tabby, Egyptian cat",
    "dog": "Chihuahua, Mexican hairless",
    "fox": "red fox, grey fox",
    "frog": "bullfrog, tailed frog",
    "lizard": "banded gecko, Komodo dragon",
    "rabbit": "wood rabbit, Angora",
    "snake": "thunder snake, sidewinder",
    "spider": "black and gold garden spider, wolf spider",
    "turtle": "loggerhead, box turtle",
    "wolf": "timber wolf, coyote",
}


def test_each_name_stands_for_its_categories() -> None:
    meta = pytest.importorskip("torchvision.models._meta", reason="its list of names")
    for name, ranges in IMAGENET_GROUPS.items():
        ends = [meta._IMAGENET_CATEGORIES[i] for r in ranges for i in (r[0], r[-1])]
        assert ", ".join(ends) == NAMES[name]


def test_labels_are_found_whatever_their_case_and_number() -> None:
    groups = imagenet_groups(("Dogs", "cat"))
    assert groups is not None
    assert [len(group) for group in groups] == [118, 5, 877]
    assert sorted(index for group in groups for index in group) == list(range(1000))


@pytest.mark.parametrize("name", IMAGENET_GROUPS)
def test_a_plural_stands_for_the_same_categories(name: str) -> None:
    plural = {"fox": "Foxes", "wolf": "Wolves"}.get(name, f"{name}s")
    assert imagenet_groups((plural,)) == imagenet_groups((name,)) is not None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (
            ("tiger", "cat", "Zebra"),
            "categories is known for tiger, Zebra; known are bear, .* wolf",
        ),
        (("cat", "cats"), "two of cat, cats are the same group"),
    ],
)
def test_labels_without_a_group_are_named(labels: tuple[str, ...], reason: str) -> None:
    assert re.search(reason, ungrouped_reason(labels))
    assert imagenet_groups(labels) is None
    assert pretrained_grouped("efficientnet_lite0", labels) is None


def test_groups_have_the_sum_of_their_categories_probabilities() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 5
    shares = logits.softmax(1)
    wanted = torch.stack([shares[:, :1].sum(1), shares[:, 1:3].sum(1), shares[:, 3:].sum(1)], 1)
    assert torch.allclose(ClassGroups((1, 2, 3))(logits).softmax(1), wanted, atol=1e-6)


@pytest.mark.slow
def test_the_network_begins_with_the_answers_of_imagenet() -> None:
    try:
        state = imagenet_state("efficientnet_lite0")[0]
    except Exception as error:
        pytest.skip(str(error))
    whole = architecture("efficientnet_lite0").build(1000).eval()
    whole.load_state_dict(state)
    built = pretrained_grouped("efficientnet_lite0", ("cat", "dog"))
    assert built is not None
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        shares, found = whole(pictures).softmax(1), built[0].eval()(pictures).softmax(1)
    assert torch.allclose(found[:, 0], shares[:, 281:286].sum(1), atol=1e-5)
    assert torch.allclose(found[:, 1], shares[:, 151:269].sum(1), atol=1e-5)


@pytest.mark.parametrize("grouped", [True, False])
def test_calibration_scales_and_shifts_the_logits_and_survives_a_checkpoint(
    tmp_path: Path, grouped: bool
) -> None:
    arch = "efficientnet_lite0_short"
    network = build_grouped(arch, (2, 3, 4)) if grouped else architecture(arch).build(3)
    assert (class_groups(network) is not None) == grouped
    spec = ModelSpec(
        arch, ("cat", "dog"), 64, 64, squash(64, 64), CENTRED, rejection=Rejection("known", 0.5)
    )
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network.eval()(pictures)
        calibrate_known(network, 0.5, 1.5)
        calibrate_known(network, 2.0, -1.0)
        save_checkpoint(tmp_path / "best.pt", network.state_dict(), spec)
        after = load_checkpoint(tmp_path / "best.pt")[0](pictures)
    assert torch.allclose(after[:, :2], before[:, :2], atol=1e-5)
    assert torch.allclose(after[:, 2], before[:, 2] + 2.0, atol=1e-5)


def test_the_last_group_is_summed_at_its_temperature(tmp_path: Path) -> None:
    network = build_grouped("efficientnet_lite0_short", (2, 3, 4)).eval()
    categories = without_groups(copy.deepcopy(network))
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        values = categories(pictures).split((2, 3, 4), dim=1)
        before = network(pictures)
        sums = before.clone()
        sums[:, 2] = 0.5 * torch.logsumexp(values[2] / 0.5, 1)
        assert not torch.allclose(sums, before, atol=1e-2)
        for _ in range(2):  # the end of a run may be repeated
            set_group_temperature(network, 0.5)
        assert torch.allclose(network(pictures), sums, atol=1e-5)
        calibrate_known(network, 3.0, 0.0)
        assert torch.allclose(network(pictures), 3 * sums, atol=1e-5)
        set_group_temperature(network, 1.0)
    assert torch.allclose(network(pictures), 3 * before, atol=1e-4)


def test_weights_from_before_the_temperature_are_read() -> None:
    network = build_grouped("efficientnet_lite0_short", (2, 3, 4))
    state = network.state_dict()
    [name] = [name for name in state if name.endswith(".temperature")]
    del state[name]
    [scale] = [name for name in state if name.endswith(".scale")]
    state[scale] = torch.tensor(2.0)
    set_group_temperature(network, 0.5)
    network.load_state_dict(state)
    groups = class_groups(network)
    assert groups is not None
    assert float(groups.temperature) == 1.0
    assert groups.scale.tolist() == [2.0, 2.0, 2.0]


def test_a_network_without_groups_has_no_temperature() -> None:
    network = architecture("efficientnet_lite0_short").build(3)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    set_group_temperature(network, 0.5)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


class TwoHeads(torch.nn.Module):
    """The mean of two heads, as networks that were distilled by a token have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
        self.third = torch.nn.Linear(8, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.first(features))
        return (self.second(features) + self.third(features)) / 2


def test_calibration_scales_the_mean_of_two_heads() -> None:
    torch.manual_seed(0)
    network, features = TwoHeads(), torch.randn(4, 8)
    with torch.inference_mode():
        before = network(features)
        calibrate_known(network, 0.5, 1.5)
        wanted = before * 0.5 + torch.tensor([0, 0, 1.5])
        assert torch.allclose(network(features), wanted, atol=1e-6)
