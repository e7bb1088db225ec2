"""The bench of training speed: two real loops that take turns, and what it says about them."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.bench_document import GPU, document

from benchmarks.studies import train_throughput
from benchmarks.studies.train_throughput import JpegFiles, Loop, LoopConfig
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import squash
from catdog_edge.training.config.recipes import recipe
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.evaluation.inference import to_input
from catdog_edge.training.models.registry import architecture
from exporters.checks.timing import Ratio


def config(folder: Path, files: tuple[str, ...], arch: str = "simple_cnn") -> LoopConfig:
    return LoopConfig(
        source="sample",
        limit=60,
        arch=arch,
        batch_size=2,
        policy="none",
        threads=1,
        files=files,
        labels=(0, 1) * (len(files) // 2),
        classes=2,
        scratch=str(folder),
    )


@pytest.mark.parametrize("arch", ["simple_cnn", "edge_cnn"])
def test_the_plain_loop_feeds_the_network_what_it_expects(tmp_path: Path, arch: str) -> None:
    size = architecture(arch).size
    coarse = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (200, 180), interpolation=cv2.INTER_CUBIC)
    files = (str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg"))
    for file in files:
        cv2.imwrite(file, frame)
    loader = torch.utils.data.DataLoader(JpegFiles(config(tmp_path, files, arch)), batch_size=2)
    inputs, labels = next(iter(loader))
    assert inputs.dtype == torch.float32
    # NCHW in memory too: a loop that got channels last by accident would not be the plain one.
    assert inputs.is_contiguous()
    assert labels.tolist() == [0, 1]
    frames = preprocess(cv2.imread(files[0]), squash(size, size))[None]
    wanted = to_input(torch.from_numpy(frames), architecture(arch).normalization)
    assert tuple(inputs.shape) == (2, 3, size, size)
    spread = float(wanted.max() - wanted.min())
    assert float((inputs[:1] - wanted).abs().mean()) < 0.02 * spread


@pytest.mark.parametrize("kind", ["drawings", "PNG files"])
def test_pictures_of_any_kind_become_jpeg_files(kind: str, easy_set: Path, tmp_path: Path) -> None:
    dataset = open_dataset("sample" if kind == "drawings" else easy_set, limit=20)
    items = dataset.items[:2]
    paths = train_throughput.write_jpegs(dataset, items, tmp_path)
    assert len(paths) == len(items) == 2
    for path, item in zip(paths, items, strict=True):
        assert Path(path).read_bytes().startswith(b"\xff\xd8\xff")
        written, decoded = cv2.imread(path), dataset.decode(item)
        assert written.shape == decoded.shape
        # Noise is what JPEG does not keep; colours are, and in their order.
        assert np.abs(written.mean((0, 1)) - decoded.mean((0, 1))).max() < 3


def test_a_jpeg_is_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(7)
    for label in ("cat", "dog"):
        for number in range(30):
            picture = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{label}.{number}.jpg"), picture)
    dataset = open_dataset(folder)
    (path,) = train_throughput.write_jpegs(dataset, dataset.items[3:4], tmp_path)
    assert Path(path).read_bytes() == (folder / dataset.items[3].file).read_bytes()


def test_both_loops_train_in_turns(
    easy_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "speed.json"
    code = train_throughput.main(
        f"--data {easy_set} --arch edge_cnn --batch-size 4 --limit 40 --seconds 0.5 "
        f"--threads 1 --json {target} --min-ratio 1e6".split()
    )
    printed = capsys.readouterr()
    assert code == 3, printed.err
    assert "1e+06 asked for" in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
    assert all(len(line) <= 100 for line in printed.out.splitlines())
    document = json.loads(target.read_text())
    assert document["settings"]["pictures"] == 32
    rows = {row["name"]: row for row in document["rows"]}
    assert rows["plain loop"]["precision"] == "float32"
    assert rows["catdog-edge"]["precision"] in ("float32", "bfloat16")
    rounds = {name: np.array(row["step"]["rounds_ms"]) for name, row in rows.items()}
    assert len(rounds["plain loop"]) == document["settings"]["rounds"] >= 4
    ratio = document["ratio"]
    expected = np.median(rounds["plain loop"] / rounds["catdog-edge"])
    assert ratio["value"] == pytest.approx(expected, rel=1e-3)
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    for row in rows.values():
        assert row["pictures_per_second"] == pytest.approx(4e3 / row["step"]["p50_ms"])
        assert row["name"] in printed.out
    assert str(tmp_path) not in target.read_text()
    assert str(easy_set) not in target.read_text()


@pytest.mark.parametrize("policy", ["none", "classic", "camera"])
def test_the_loop_for_gpus_takes_the_same_pictures(tmp_path: Path, policy: str) -> None:
    pytest.importorskip("torchvision")
    coarse = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    file = tmp_path / "0.jpg"
    cv2.imwrite(str(file), cv2.resize(coarse, (200, 180), interpolation=cv2.INTER_CUBIC))
    settings = replace(config(tmp_path, (str(file),) * 2, "edge_cnn"), policy=policy)
    (mine, _), (theirs, label) = JpegFiles(settings)[0], JpegFiles(replace(settings, workers=1))[1]
    assert label == 1
    assert theirs.shape == mine.shape
    assert theirs.dtype == mine.dtype
    if policy == "none":
        assert (mine - theirs).abs().mean() < 0.04 * (mine.max() - mine.min())


@pytest.mark.parametrize(("workers", "precision"), [(0, "float32"), (1, "bfloat16")])
def test_a_turn_is_as_many_steps_as_asked_for(
    workers: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autocast: list[bool] = []
    forward = torch.nn.CrossEntropyLoss.forward

    def seen(self: torch.nn.CrossEntropyLoss, answers: torch.Tensor, truth: torch.Tensor) -> object:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return forward(self, answers, truth)

    monkeypatch.setattr(torch.nn.CrossEntropyLoss, "forward", seen)
    file = tmp_path / "0.jpg"
    cv2.imwrite(str(file), np.full((40, 40, 3), 90, np.uint8))
    settings = config(tmp_path, (str(file),) * 4, "edge_cnn")
    settings = replace(settings, steps=3, workers=workers)
    here, there = multiprocessing.Pipe()
    for more in (True, True, False):
        here.send(more)
    train_throughput.usual_loop(settings, train_throughput.Turns(there, settings))
    notes, *reports = [here.recv() for _ in range(3)]
    assert notes["precision"] == precision
    assert set(autocast) == {precision == "bfloat16"}
    assert reports == [None, None]
    assert not here.poll()


def test_a_loop_that_fails_says_why(tmp_path: Path) -> None:
    loop = Loop("plain loop", config(tmp_path, (str(tmp_path / "gone.jpg"),) * 2))
    try:
        with pytest.raises(CatdogError, match=r"the plain loop failed: .*gone\.jpg"):
            loop.step()
        with pytest.raises(CatdogError, match="ended with code 0"):
            loop.step()
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nowhere.zip"], "there is no folder or zip"),
        (["--arch", "nonesuch"], "there is no architecture 'nonesuch'"),
        (["--batch-size", "1"], "--batch-size must be at least 2"),
        (["--arch", "edge_cnn", "--limit", "20", "--batch-size", "500"], "make no batch of 500"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_throughput.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    # Where reading takes long, its progress comes before.
    assert says in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("arguments", [("--seconds", "nan"), ("--threads", "0")])
def test_wrong_usage(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train_throughput.main(list(arguments))
    assert caught.value.code == 2
    assert f"argument {arguments[0]}: give a" in capsys.readouterr().err


def test_on_a_gpu_the_card_names_it_and_workers_are_what_may_run(
    easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[LoopConfig] = []

    def time_loops(config: LoopConfig, seconds: float) -> Any:
        configs.append(config)
        ratios = {train_throughput.PLAIN: Ratio(2.0, 1.9, 2.1)}
        return {}, SimpleNamespace(
            timing=SimpleNamespace(rounds=4), ratios=ratios, summaries={}, warm_ups={}, drifts={}
        )

    monkeypatch.setattr(train_throughput, "time_loops", time_loops)
    monkeypatch.setattr(train_throughput, "choose_device", lambda asked: asked)
    monkeypatch.setattr(train_throughput.Gpu, "detect", lambda: GPU)
    monkeypatch.setattr(train_throughput, "usable_processors", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: GPU.name)
    options = argparse.Namespace(
        arch="edge_cnn", data=str(easy_set), limit=40, batch_size=4, augment="none", seconds=1.0,
        threads=1, device="cuda",
    )  # fmt: skip
    for quota, workers in ((None, 4), (2.5, 2), (0.5, 1)):
        monkeypatch.setattr(train_throughput, "cgroup_quota", lambda quota=quota: quota)
        found = train_throughput.run(options)
        assert configs[-1].workers == workers
        assert found["environment"]["gpu"]["driver"] == GPU.driver


def test_the_table_tells_the_loops_apart() -> None:
    step = {"p50_ms": 12.345, "p95_ms": 123.4, "calls": 40}
    loop = {"pictures": "JPEG files", "precision": "float32", "memory": "NCHW", "step": step}
    shown = document() | {
        "settings": {
            "arch": "net", "size": 64, "batch_size": 4, "augment": "none", "pictures": 32,
            "data": "sample", "device": "cpu", "steps": 1, "rounds": 7,
        },
        "ratio": {"value": 2.5, "low": 2.0, "high": 3.0},
        "rows": [
            {"name": "catdog-edge", **loop, "pictures_per_second": 1234.56, "tried": "yes"},
            {"name": "plain loop", **loop, "pictures_per_second": 98.7},
        ],
    }  # fmt: skip
    lines = train_throughput.text(shown).splitlines()
    assert lines[0] == (
        "net at 64x64, Adam, batch 4, augmentation none, 32 images of sample, on cpu"
    )
    assert lines[2].split()[-6:] == ["images/s", "step,", "ms", "p95,", "ms", "turns"]
    assert lines[4].split()[-5:] == ["NCHW", "1,234.6", "12.3", "123", "40"]
    assert lines[5].split()[-4:] == ["98.7", "12.3", "123", "40"]
    told = " ".join(lines)
    assert "catdog-edge trains 2.50 (2.00-3.00) times as many images per second" in told
    assert "the machine was quiet" in told
    shown["settings"]["steps"], shown["noise"] = 8, ["a neighbour"]
    told = train_throughput.text(shown)
    assert "8 steps, ms" in told
    assert "NOISY: a neighbour" in told
    assert "quiet" not in told


def test_the_learning_rate_is_that_of_train_for_the_batch(tmp_path: Path) -> None:
    usual = recipe("classic")
    small = config(tmp_path, ())
    assert small.lr == pytest.approx(usual.lr * 2 / usual.batch_size)
    assert replace(small, batch_size=4 * usual.batch_size).lr == usual.lr
