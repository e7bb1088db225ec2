"""Several processes, one network: the figures of one process, by one writer."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
        reason="this build of PyTorch has no gloo",
    ),
]

from click.testing import CliRunner

from catdog_edge.cli.main import main
from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.training.engine.distributed import (
    ProcessGroup,
    is_distributed,
    join_process_group,
    once_per_node,
)
from catdog_edge.training.models.checkpoint import load_checkpoint

QUICK = ("--arch", "edge_cnn", "--size", "32", "--batch-size", "16", "--precision", "float32")


def command(name: str, *more: str, processes: int = 2) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*start, "catdog_edge", "train", "--name", name, *more]


def run(folder: Path, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, processes=processes),
        cwd=folder, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def rows(folder: Path, name: str) -> list[dict[str, float]]:
    with (folder / "runs" / name / "results.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe in which every process computes what one would: no statistics of a batch."""
    shown = CliRunner().invoke(main, ["train", "--show-recipe", "--epochs", "3", "--lr", "0.002"])
    assert shown.exit_code == 0, shown.output
    file = tmp_path / "plain.yaml"
    file.write_text(shown.stdout.replace("norms: built", "norms: frozen"))
    return file


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(
    tmp_path: Path, easy_set: Path, recipe: Path
) -> None:
    settings = ("--data", str(easy_set), "--recipe", str(recipe), *QUICK)
    for name, processes in (("one", 1), ("two", 2)):
        done = run(tmp_path, name, *settings, processes=processes)
        assert done.returncode == 0, done.stderr
    assert "in 2 processes" in done.stderr
    assert done.stderr.count("trained in") == 1, "each process speaks"
    one, two = rows(tmp_path, "one"), rows(tmp_path, "two")
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        # Half of the pictures each: all of them in both would give the same losses.
        assert shared["pictures_per_second"] * shared["seconds"] == pytest.approx(
            alone["pictures_per_second"] * alone["seconds"], rel=1e-3
        )
        for name in ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-3), name
    assert one[-1]["train_loss"] < one[0]["train_loss"], "nothing was learnt"
    alone, shared = (
        load_checkpoint(tmp_path / "runs" / name / "best.pt")[0].state_dict()
        for name in ("one", "two")
    )
    for name, value in alone.items():
        assert torch.allclose(value, shared[name], atol=1e-4), name
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one", "two"]


@pytest.mark.slow
def test_batch_statistics_of_each_process_learn_as_well(tmp_path: Path, easy_set: Path) -> None:
    done = run(tmp_path, "two", "--data", str(easy_set), "--epochs", "3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path, "two")[-1]["val_accuracy"] > 0.9
    # What all processes measured together is what the one file answers.
    summary = json.loads((tmp_path / "runs" / "two" / "summary.json").read_text())
    best = summary["best"]["epoch"] - 1
    measured = rows(tmp_path, "two")[best]["val_accuracy"]
    assert summary["validation"]["accuracy"] == pytest.approx(measured, abs=1e-6)


@pytest.mark.slow
def test_an_interrupted_pair_goes_on(tmp_path: Path, easy_set: Path, recipe: Path) -> None:
    settings = ("--data", str(easy_set), "--recipe", str(recipe), *QUICK, "--epochs", "40")
    process = subprocess.Popen(
        command("cut", *settings),
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    heard = ""
    while "2/40" not in heard:
        line = process.stderr.readline()
        assert line, heard
        heard += line
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    with process.stderr:
        heard += process.stderr.read()
    process.wait(60)
    assert heard.count("stopping after this step") == 1
    assert heard.count("-m catdog_edge train --resume --name cut") == 1
    assert "torchrun --nproc-per-node 2" in heard
    before = len(rows(tmp_path, "cut"))
    assert 2 <= before < 40
    # torchrun sends SIGTERM after SIGINT; whichever came, what is there can be used.
    load_checkpoint(tmp_path / "runs" / "cut" / "last.pt")
    document = (tmp_path / "runs" / "cut" / "args.yaml").read_text()
    shorter = document.replace("\nepochs: 40", f"\nepochs: {before + 2}")
    (tmp_path / "runs" / "cut" / "args.yaml").write_text(shorter)
    done = run(tmp_path, "cut", "--resume")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path, "cut")) == before + 2


def test_each_process_of_a_machine_has_a_cuda_device_of_its_own() -> None:
    second = ProcessGroup(rank=3, world_size=4, local_rank=1, local_world_size=2)
    assert [second.own_device(name) for name in ("cpu", "cuda", "cuda:0")] == [
        "cpu", "cuda:1", "cuda:1",
    ]  # fmt: skip
    assert ProcessGroup().own_device("cuda:2") == "cuda:2"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices here")
def test_more_processes_than_cuda_devices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", 0), ("WORLD_SIZE", 2), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    told = pytest.raises(CatdogError, match="2 processes on this machine, but 0 CUDA devices")
    with told, join_process_group("cuda"):
        pass


@pytest.mark.slow
def test_too_few_pictures_for_the_processes_is_one_line(tmp_path: Path) -> None:
    data = ("--data", "sample", "--limit", "12", "--split", "20/40/40")
    done = run(tmp_path, "few", *data, *QUICK, processes=2)
    assert done.returncode != 0
    assert "too few for 2 processes" in done.stderr
    assert not (tmp_path / "runs" / "few").exists()


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of ours; torchrun adds its own table of processes that failed."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("catdog-edge: ")]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert "gloo" not in done.stderr
    return lines[0]


@pytest.mark.slow
def test_an_error_of_all_processes_is_told_once(tmp_path: Path) -> None:
    data = ("--data", "sample", "--limit", "40")
    assert "no folder or zip" in told(run(tmp_path, "bad", *QUICK, "--data", "absent"))
    small = run(tmp_path, "bad", *data, *QUICK, "--batch-size", "3")
    assert "--batch-size 4 or more" in told(small)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    assert "taken exists already" in told(run(tmp_path, "taken", *data, *QUICK))


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_half_of_torchruns_variables_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "1")
    answer = CliRunner().invoke(main, ["train", "--data", "sample", "--limit", "40"])
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"catdog-edge: {name} is set")
    assert "Traceback" not in answer.output


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "2"}, "RANK=2, WORLD_SIZE=2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1 is not a process"),
        ({"RANK": "-1"}, "RANK=-1"), ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1"),
        ({"RANK": "1", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "3"}, "LOCAL_RANK=3"),
        ({"RANK": "one"}, "RANK=one"),
    ],
)  # fmt: skip
def test_variables_that_are_no_process_group_are_named(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"RANK": "0", "WORLD_SIZE": "2"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CatdogError, match=told), join_process_group("cpu"):
        pass


def test_one_process_is_a_group_of_its_own() -> None:
    with join_process_group("cpu") as group:
        assert group == ProcessGroup(0, 1, 0, 1)
        assert (group.is_main, group.is_single) == (True, True)
        with group.shared_errors(), group.local_main_first():
            group.barrier()
            assert (group.broadcast(3), group.all_gather(3)) == (3, [3])
            assert group.all_reduce(torch.ones(2)).tolist() == [1, 1]
    assert not is_distributed()


@pytest.mark.parametrize(("local_rank", "kind"), [("0", CatdogError), ("1", SystemExit)])
def test_an_error_is_told_once_per_node(
    local_rank: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CatdogError), once_per_node():
        raise CatdogError("alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert is_distributed()
    with pytest.raises(kind), once_per_node():
        raise CatdogError("of both")


def both(folder: Path, work: Callable[[ProcessGroup], object]) -> list[object]:
    """What a function returns or raises in each process of a group of two."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []
    for rank in (0, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of PyTorch, at rest
            process = os.fork()
        if process == 0:
            group = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
            group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in group.items()})
            try:
                with join_process_group("cpu") as joined:
                    found = work(joined)
            except BaseException as error:
                found = [type(error).__name__, str(error)]
            (folder / f"{rank}.json").write_text(json.dumps(found))
            os._exit(0)
        processes.append(process)
    end = time.monotonic() + 60
    while processes and time.monotonic() < end:
        processes = [one for one in processes if os.waitpid(one, os.WNOHANG)[0] == 0]
        time.sleep(0.01)
    for one in processes:
        os.kill(one, signal.SIGKILL)
    assert not processes, "they wait for each other"
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_what_two_processes_share(tmp_path: Path) -> None:
    def work(group: ProcessGroup) -> list[object]:
        norm = torch.nn.BatchNorm1d(2)
        norm.running_mean.fill_(5.0 + group.rank)
        group.broadcast_buffers(norm)
        sums = group.all_reduce(torch.tensor([1.0, group.rank]))
        with group.local_main_first():
            file = tmp_path / "first"
            found = file.exists()
            if group.is_main:
                time.sleep(0.1)
                file.touch()
        told = ""
        try:
            with group.shared_errors():
                if group.rank == 1:
                    raise ModelError("no room")
        except CatdogError as error:
            told = f"{error} ({error.exit_code})"
        group.barrier()
        return [
            group.is_main, group.is_single, group.broadcast(f"of {group.rank}"),
            group.all_gather(10 * group.rank), sums.tolist(), norm.running_mean.tolist(), found,
            told,
        ]  # fmt: skip

    code = ModelError("").exit_code
    common = [False, "of 0", [0, 10], [2, 1], [5, 5]]
    assert both(tmp_path, work) == [
        [True, *common, False, f"process 1 of 2: no room ({code})"],
        [False, *common, True, f"no room ({code})"],
    ]


def test_an_error_of_both_is_raised_in_the_main_process(tmp_path: Path) -> None:
    def fail(group: ProcessGroup) -> None:
        raise CatdogError("of both")

    assert both(tmp_path, fail) == [["CatdogError", "of both"], ["SystemExit", "1"]]


def test_a_process_whose_partner_has_ended_says_how_to_go_on(tmp_path: Path) -> None:
    def leave(group: ProcessGroup) -> None:
        if group.rank == 1:
            (tmp_path / "1.json").write_text("null")
            os._exit(1)
        group.barrier()

    (kind, message), _ = both(tmp_path, leave)
    assert kind == "CatdogError"
    assert "another of the processes has ended" in message
