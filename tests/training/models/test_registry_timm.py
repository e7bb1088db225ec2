"""Networks of timm by name: `--arch timm:NAME`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch; install [train]")
pytestmark = pytest.mark.train

from click.testing import CliRunner
from support.models.tiny_nets import answers, pictures, settle, spec_for

from catdog_edge.cli.main import main
from catdog_edge.errors import MissingPackageError, ModelError
from catdog_edge.training.evaluation.inference import probabilities
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.models.pretrained import check_pretrained, load_pretrained
from catdog_edge.training.models.registry import architecture

NAME = "timm:test_efficientnet"


def timm():
    return pytest.importorskip("timm", reason="networks of timm need [timm]")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"needs the package timm.*\[timm\]'"):
        architecture(NAME)


def test_size_mean_and_deviation_are_timms() -> None:
    timm()
    arch = architecture("timm:tf_efficientnet_lite1")
    assert (arch.size, arch.fixed_size) == (240, False)
    assert arch.normalization.mean == (127.5, 127.5, 127.5)
    assert arch.normalization.std == (127.5, 127.5, 127.5)
    assert architecture("timm:levit_128s").fixed_size
    with pytest.raises(ModelError, match=r"no network 'resnet81'; similar names: .*resnet18"):
        architecture("timm:resnet81")


def test_weights_come_from_the_cache_or_are_missed_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = timm().create_model("test_efficientnet", num_classes=1000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"hf download timm/test_efficientnet\.r160_in1k model"):
        check_pretrained(NAME)
    bare = next(name for name in timm().list_models() if not timm().is_model_pretrained(name))
    with pytest.raises(ModelError, match="has no pretrained weights"):
        check_pretrained(f"timm:{bare}")
    folder = tmp_path / "models--timm--test_efficientnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    torch.save(there.state_dict(), folder / "snapshots" / "abc" / "pytorch_model.bin")
    network = architecture(NAME).build(2)
    assert "timm/test_efficientnet.r160_in1k" in load_pretrained(network, NAME)
    found, wanted = network.state_dict(), there.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in found if "classifier" not in key)
    assert found["classifier.weight"].shape[0] == 2
    (folder / "snapshots" / "abc" / "pytorch_model.bin").write_bytes(b"cut")
    with pytest.raises(ModelError, match="damaged or not the weights"):
        load_pretrained(network, NAME)


@pytest.mark.slow
def test_train_takes_a_network_of_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, easy_set: Path
) -> None:
    timm()
    monkeypatch.chdir(tmp_path)
    command = ["train", "--data", str(easy_set), "--arch", NAME, "--size", "32", "--epochs", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    _, spec = load_checkpoint(tmp_path / "runs" / "lamps-timm-test_efficientnet-1" / "best.pt")
    assert (spec.architecture, spec.size) == (NAME, (32, 32))


def test_branches_are_joined_before_export(tmp_path: Path) -> None:
    timm()
    pytest.importorskip("onnx")
    from timm.models.byobnet import MobileOneBlock

    from exporters.formats.torch_export import export_onnx

    network = torch.nn.Sequential(
        MobileOneBlock(3, 8, 3, stride=2, num_conv_branches=2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    spec, frames = spec_for(name="timm:mobileone"), pictures(6)
    settle(network, spec, frames)
    made = export_onnx(network, spec, tmp_path / "model.onnx")
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 3
    assert made.operators["Conv"] == 1
    found = answers(tmp_path / "model.onnx", frames)
    assert np.abs(found - probabilities(network, spec, frames)).max() < 1e-5
