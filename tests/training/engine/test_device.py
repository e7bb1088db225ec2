"""The device that `--device` names, and PyTorch's threads."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError
from catdog_edge.training.engine.device import Upload, choose_device, pinned, torch_threads


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "give cpu, cuda"), ("mps", "give cpu, cuda"), ("meta", "give cpu, cuda"),
        ("", "give cpu, cuda"), ("cuda", "--device cuda: PyTorch"),
        ("CUDA", "--device cuda: PyTorch"), ("cuda:999", "--device cuda:999: PyTorch"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CatdogError, match=message):
        choose_device(name)


def test_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    chosen = [choose_device(name) for name in ("auto", " CPU ", "cuda", "cuda:1")]
    assert chosen == ["cuda", "cpu", "cuda", "cuda:1"]
    assert current == [1]  # a CUDA graph is captured on the current device
    with pytest.raises(CatdogError, match="there are 2 CUDA devices, numbered from 0"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"


def test_the_threads_are_set_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    with torch_threads(3) as count:
        assert count == torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CATDOG_EDGE_THREADS", "2")
    with torch_threads() as count, torch_threads(3) as given:
        assert (count, given) == (2, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    with torch_threads() as count:
        assert count == before


def test_arrays_reach_a_device_in_one_copy_as_they_are_but_in_float32() -> None:
    arrays = {
        "wide": np.linspace(0, 1, 3), "rows": np.arange(5)[::-1], "flags": np.eye(3, dtype=bool),
        "none": np.zeros((0, 4), np.float32), "levels": np.arange(35, dtype=np.uint8),
    }  # fmt: skip
    upload = Upload(arrays, torch.device("cpu"))
    sent = upload.take()
    for name, array in arrays.items():
        wanted = array.astype(np.float32) if name == "wide" else array
        assert sent[name].numpy().dtype == wanted.dtype
        assert np.array_equal(sent[name].numpy(), wanted)
        pinned_one = pinned(array, torch.device("cpu"))
        assert torch.equal(pinned_one, sent[name])
    assert len(upload._buffer) == 16 + 48 + 16 + 0 + 48  # each begins at a multiple of 16 bytes
