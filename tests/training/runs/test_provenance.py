"""What travels with the weights, and what `args.yaml` holds."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.spec import squash
from catdog_edge.training.config.recipes import RECIPES
from catdog_edge.training.config.train_options import TrainOptions
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import SampleSource
from catdog_edge.training.data.negatives import Negatives
from catdog_edge.training.engine.trainer import Plan
from catdog_edge.training.runs.provenance import arguments, git_commit, trained_on
from catdog_edge.training.runs.run_data import RunData

OPTIONS = TrainOptions(
    data=(), labels=None, split=(80, 10, 10), limit=None, arch="edge_cnn", recipe=None,
    epochs=None, batch_size=None, lr=None, size=None, pretrained=None, freeze=None, teacher=None,
    other=(), name=None, seed=5, patience=0, device="cpu", precision="float32",
)  # fmt: skip
PLAN = Plan(RECIPES["default"], 3, 16, 0.01, 5, 2, "float32", "cpu")


def dataset(source: str, *splits: str) -> Dataset:
    items = tuple(Item(f"{n}.jpg", n % 2, split, f"{n}") for n, split in enumerate(splits))
    return Dataset(source, ("cat", "dog"), items, files=SampleSource())


PETS, WEB = (
    dataset("/data/pets.zip", "train", "train", "val"),
    dataset("/data/web", "train", "test"),
)
NEGATIVES = Negatives((dataset("/else/streets", "train"),), squash(8, 8))


def test_no_path_travels_and_only_what_was_asked_for() -> None:
    found = trained_on(RunData((PETS, WEB)), PLAN, None, OPTIONS)
    assert found == {
        "data": "pets.zip, web", "drawings": False, "pictures": {"train": 3, "val": 1, "test": 1},
        "recipe": "default", "epochs": 3, "batch_size": 16, "lr": 0.01, "seed": 5,
        "precision": "float32",
    }  # fmt: skip


def test_what_was_asked_for_travels() -> None:
    plan = replace(PLAN, recipe=replace(RECIPES["default"], pretrained=True, freeze=True))
    options = replace(OPTIONS, split=(70, 20, 10), leave_out=("web",), reject_at="tpr:0.9")
    teacher = SimpleNamespace(spec=SimpleNamespace(architecture="resnet18"), sha256="abc")
    data = RunData((dataset("sample", "train"),), NEGATIVES)
    found = trained_on(data, plan, teacher, options)  # type: ignore[arg-type]
    assert found["drawings"] is True
    assert found["data"] == "sample"
    assert (found["pretrained"], found["freeze"], found["teacher"]) == (True, True, "resnet18")
    assert (found["split"], found["left_out"]) == ([70, 20, 10], ["web"])
    assert (found["other"], found["other_split"]) == ("streets", [0.7, 0.15, 0.15])
    assert found["reject_at"] == "tpr:0.9"


def test_args_yaml_has_what_a_resume_needs(tmp_path: Path) -> None:
    teacher = tmp_path / "best.pt"
    trainer = SimpleNamespace(plan=PLAN, teacher=SimpleNamespace(sha256="abc"))
    options = replace(OPTIONS, teacher=teacher, limit=40, keep_damaged=True)
    data = RunData((PETS, WEB), NEGATIVES)
    found = arguments(data, options, trainer, {"threads": 3, "processes": 1})  # type: ignore[arg-type]
    assert (found["data"], found["more_data"]) == ("/data/pets.zip", ["/data/web"])
    assert found["other"] == ["/else/streets"]
    assert found["teacher"] == {"file": str(teacher.resolve()), "sha256": "abc"}
    assert found["recipe"] == RECIPES["default"].to_dict()
    assert (found["limit"], found["keep_damaged"], found["threads"]) == (40, True, 3)
    assert {name: found[name] for name in ("epochs", "batch_size", "lr", "seed", "patience")} == {
        "epochs": 3, "batch_size": 16, "lr": 0.01, "seed": 5, "patience": 2,
    }  # fmt: skip
    plain = arguments(RunData((PETS,)), OPTIONS, trainer, {})  # type: ignore[arg-type]
    assert (plain["other"], plain["teacher"], plain["labels"]) == (None, None, ["cat", "dog"])
    assert (plain["keep_damaged"], plain["leave_out"], plain["reject_at"]) == (False, [], "eer")


def test_the_commit_is_that_of_this_checkout_or_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    is_known = (ROOT / ".git").exists() and shutil.which("git") is not None
    assert re.fullmatch("[0-9a-f]{40}" if is_known else "", git_commit())
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_commit() == ""
    monkeypatch.setenv("PATH", "")
    assert git_commit() == ""
