from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_disk import small_disk

torch = pytest.importorskip("torch", reason="checkpoints need torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.spec import ModelSpec, squash
from catdog_edge.training.evaluation.inference import probabilities
from catdog_edge.training.models.checkpoint import (
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from catdog_edge.training.models.registry import architecture

ARCH = architecture("edge_cnn")
SPEC = ModelSpec(
    architecture=ARCH.name,
    labels=("cat", "dog"),
    height=ARCH.size,
    width=ARCH.size,
    resize=squash(ARCH.size, ARCH.size),
    normalization=ARCH.normalization,
    temperature=1.5,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "best.pt"
    save_checkpoint(path, ARCH.build(2).state_dict(), SPEC, {"epoch": 3})
    return path


def test_weights_and_spec_come_back(saved: Path) -> None:
    torch.manual_seed(0)
    original = ARCH.build(2).eval()
    network, spec = load_checkpoint(saved)
    assert spec == SPEC
    assert not network.training
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SPEC.size, 3), dtype=np.uint8)
    expected = probabilities(original, SPEC, pixels)
    assert (probabilities(network, spec, pixels) == expected).all()
    assert read_checkpoint(saved)[0]["training"] == {"epoch": 3}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_says_so_in_one_line(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    why = "not PyTorch's zip format" if share < 0.01 else "PytorchStreamReader .*central directory"
    with pytest.raises(ModelError, match=f"damaged or not a checkpoint \\({why}\\)") as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_named_as_such(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")
    text = tmp_path / "notes.pt"
    text.write_text("hello")
    with pytest.raises(ModelError, match=r"not a checkpoint \(not PyTorch's zip format\)"):
        load_checkpoint(text)
    foreign = tmp_path / "foreign.pt"
    torch.save({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(ModelError, match="not a checkpoint of catdog-edge"):
        load_checkpoint(foreign)
    text = SPEC.to_json()
    for other in (
        [text],
        {"spec": text},
        {"spec": text, "state_dict": []},
        {"state_dict": {text: 1}},
    ):
        torch.save(other, foreign)
        with pytest.raises(ModelError, match=r"not a checkpoint of catdog-edge \(no spec"):
            load_checkpoint(foreign)
    document = torch.load(saved, weights_only=True)
    document["state_dict"].popitem()
    torch.save(document, saved)
    with pytest.raises(ModelError, match="do not fit edge_cnn"):
        load_checkpoint(saved)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "evil.pt"
    torch.save({"spec": SPEC.to_json(), "state_dict": {}, "training": Evil()}, path)
    with pytest.raises(ModelError):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_saving_into_a_file_instead_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CatdogError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "best.pt", {}, SPEC)


def test_a_full_disk_is_called_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "256k") as disk:
        with pytest.raises(CatdogError, match="No space left") as caught:
            save_checkpoint(disk / "best.pt", {"weight": torch.zeros(1_000_000)}, SPEC)
        assert "\n" not in str(caught.value)
        assert not list(disk.iterdir())
