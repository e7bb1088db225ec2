"""What the end of a run leaves: calibrated weights, figures and a summary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from matplotlib.figure import Figure
from support.commands.training_runs import RUN_FILES, table
from support.models.tiny_nets import pictures, spec_for
from support.models.tiny_nets import trained as trained_net

from catdog_edge.spec import Rejection
from catdog_edge.training.config.recipes import RECIPES
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import SampleSource
from catdog_edge.training.data.negatives import Negatives, drawn_negatives
from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.evaluation.calibration import fit_temperature
from catdog_edge.training.evaluation.classification_report import evaluate
from catdog_edge.training.evaluation.inference import known, logits
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.evaluation.rejection import ThresholdRule, choose_threshold
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.runs import plots, validation_report
from catdog_edge.training.runs.run_data import RunData
from catdog_edge.training.runs.run_folder import Run


def test_a_run_leaves_the_files_of_the_design(trained: Path) -> None:
    assert {file.name for file in trained.iterdir()} - {"mistakes.png"} == RUN_FILES
    rows = table(trained / "results.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    summary = json.loads((trained / "summary.json").read_text())
    kept = next(row for row in rows if int(row["epoch"]) == summary["best"]["epoch"])
    highest = max(float(row["val_accuracy"]) for row in rows)
    slack = (highest * (1 - highest) / summary["validation"]["pictures"]) ** 0.5
    assert float(kept["val_accuracy"]) >= highest - slack - 1e-5
    as_good = [row for row in rows if float(row["val_accuracy"]) >= highest - slack]
    assert kept["val_loss"] == min((row["val_loss"] for row in as_good), key=float)
    for picture in ("data.png", "curves.png", "confusion.png"):
        assert (trained / picture).read_bytes().startswith(b"\x89PNG")
    assert (trained / "mistakes.png").exists() is (summary["validation"]["accuracy"] < 1)


def test_the_checkpoint_carries_what_a_reader_must_know(trained: Path, easy_set: Path) -> None:
    _, spec = load_checkpoint(trained / "best.pt")
    assert spec.labels == ("bright", "dark")
    assert spec.architecture == "edge_cnn"
    assert spec.trained_on["data"] == "lamps"
    assert spec.metrics["validation"]["pictures"] > 0
    assert spec.temperature > 0
    assert str(easy_set.parent) not in spec.to_json(), "a path of this machine travels"


def test_of_wrong_labels_the_confident_ones_are_listed(trained: Path, tmp_path: Path) -> None:
    network, spec = load_checkpoint(trained / "best.pt")
    dataset = Run(trained).datasets()[0]
    labels = np.array([item.label for item in dataset.items_of("val")])
    wrong = np.where(np.arange(len(labels)) % 2, 0.95, 0.85).astype(np.float32)
    answers = np.stack([wrong, wrong], axis=1)
    answers[np.arange(len(labels)), labels] = 1 - wrong
    plan, data = SimpleNamespace(precision="float32"), SimpleNamespace(train=(None, labels))
    trainer: Any = SimpleNamespace(device=torch.device("cpu"), plan=plan, data=data)
    validated: Any = SimpleNamespace(spec=spec, probabilities=answers)
    count = validation_report._review(Run(tmp_path), dataset, network, trainer, validated)
    rows = table(tmp_path / "review.csv")
    assert len(rows) == count
    listed = [r["confidence"] for r in rows if (r["split"], r["why"]) == ("val", "label")]
    assert listed == ["0.95"] * (len(labels) // 2)


def named(source: str, count: int, labels: np.ndarray) -> Dataset:
    items = tuple(Item(f"{n}.jpg", int(labels[n]), "val", str(n)) for n in range(count))
    return Dataset(source, ("bright", "dark"), items, files=SampleSource())


@pytest.mark.parametrize("rule", ["eer", "tpr:0.9", None])
def test_weights_are_calibrated_and_their_threshold_chosen_by_the_rule(rule: str | None) -> None:
    labels, truth = ("bright", "dark"), np.arange(40) % 2
    spec = spec_for(labels=labels).replace(trained_on={"reject_at": rule} if rule else {})
    network, count = trained_net(0)[0], len(truth)
    images = pictures(60)[np.arange(60) % 3 < 2]
    negatives = None if rule is None else Negatives((), spec.resize)
    # The first half is of one source, the other of another one.
    sets = [named(f"/data/{name}", count // 2, truth) for name in ("lamps", "street")]
    data = RunData(tuple(sets), negatives)
    trainer: Any = SimpleNamespace(
        device=torch.device("cpu"), data=SimpleNamespace(val=(images, truth))
    )
    found = validation_report._validate(network, spec, trainer, data)
    values = logits(network, spec.normalization, images)  # the network is calibrated now
    assert found.spec.temperature == fit_temperature(values[:, :2], truth)
    answers = softmax(values[:, :2], found.spec.temperature)
    np.testing.assert_allclose(found.probabilities, answers, atol=1e-6)
    assert found.result.accuracy == (answers.argmax(1) == truth).mean() > 0.9
    assert found.spec.metrics["validation"]["log_loss"] == found.result.log_loss
    assert set(found.spec.metrics["validation"]) == set(validation_report.SPEC_METRICS)
    right = answers.argmax(1) == truth
    halves = {"lamps": slice(None, count // 2), "street": slice(count // 2, None)}
    by_source = {one.name: one for one in found.sources}
    assert set(by_source) == set(halves)
    for name, half in halves.items():
        assert by_source[name].accuracy[0] == right[half].mean()
    if rule is None:
        assert {one.answered for one in found.sources} == {None}
        assert (found.spec.rejection, found.rejection, found.negatives) == (None, {}, {})
        return
    drawn = known(logits(network, spec.normalization, drawn_negatives(spec.resize)))
    np.testing.assert_allclose(found.negatives["drawn"], drawn, atol=1e-5)
    for name, half in halves.items():
        np.testing.assert_allclose(found.classes[name], known(values)[half], atol=1e-6)
        share = (found.classes[name] >= found.spec.rejection.threshold).mean()
        assert by_source[name].answered[0] == share
    middle = choose_threshold(found.classes, found.negatives)
    low = choose_threshold(found.classes, found.negatives, ThresholdRule("tpr", 0.9))
    assert middle == pytest.approx(0.5, abs=0.05)
    assert found.spec.rejection == Rejection("known", 0.5 if rule == "eer" else low)
    assert set(found.rejection) == {"drawn"}
    finished = found.spec.replace(trained_on={**found.spec.trained_on, "best_epoch": 1})
    again = validation_report._validate(network, finished, trainer, data)
    np.testing.assert_array_equal(logits(network, spec.normalization, images), values)
    assert again.spec == finished, "a run that is finished once more is calibrated once"
    np.testing.assert_array_equal(again.probabilities, found.probabilities)


class Doubled(torch.nn.Module):
    """A tiny network with a second head behind the first; their outputs are added."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.network = trained_net(0)[0]
        self.more = torch.nn.Linear(3, 3, bias=bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.network(images)
        return found + self.more(found) * 0.1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rule", ["eer", "tpr:0.9"])
def test_a_head_that_cannot_be_scaled_keeps_its_scores(
    rule: str, bias: bool, caplog: pytest.LogCaptureFixture
) -> None:
    truth, images = np.arange(40) % 2, pictures(60)[np.arange(60) % 3 < 2]
    spec = spec_for(labels=("bright", "dark")).replace(trained_on={"reject_at": rule})
    network = Doubled(bias).eval()
    before = logits(network, spec.normalization, images)
    data = RunData((named("/data/lamps", len(truth), truth),), Negatives((), spec.resize))
    trainer: Any = SimpleNamespace(
        device=torch.device("cpu"), data=SimpleNamespace(val=(images, truth))
    )
    found = validation_report._validate(network, spec, trainer, data)
    assert "the head of tiny is neither a linear layer nor" in caplog.text
    np.testing.assert_array_equal(logits(network, spec.normalization, images), before)
    drawn = known(logits(network, spec.normalization, drawn_negatives(spec.resize)))
    np.testing.assert_allclose(found.negatives["drawn"], drawn, atol=1e-6)
    np.testing.assert_allclose(found.classes["lamps"], known(before), atol=1e-6)
    threshold = choose_threshold(found.classes, found.negatives, ThresholdRule.parse(rule))
    assert found.spec.rejection == Rejection("known", threshold)


def test_figures_name_the_data_and_show_the_worst_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.setdefault(path.name, figure))
    truth = np.arange(50) % 2
    confidence = np.linspace(0.51, 1.0, 50, dtype=np.float32)
    answers = np.stack([confidence, confidence], axis=1)
    wrong = np.arange(50) >= 8
    answers[np.arange(50), np.where(wrong, truth, 1 - truth)] = 1 - confidence
    result = evaluate(answers, truth, ("bright", "dark"))
    sources = [f"/data/s{number}.zip" for number in range(4)]
    datasets = tuple(named(one, 50 if one == sources[0] else 0, truth) for one in sources)
    history = [EpochMetrics(1, 0.1, 0.5, 0.9, 0.4, 0.9, 1.0, 1.0)]
    images = np.arange(50, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    trainer: Any = SimpleNamespace(data=SimpleNamespace(val=(images, truth)), history=history)
    spec = spec_for(labels=("bright", "dark"))
    validated: Any = SimpleNamespace(spec=spec, result=result, probabilities=answers)
    validation_report._save_figures(tmp_path, RunData(datasets), trainer, validated, history[0])
    titles = {name: figure.get_suptitle() for name, figure in drawn.items()}
    assert titles == {
        "curves.png": "tiny on s0.zip, s1.zip, s2.zip, ... (4 in all)",
        "confusion.png": "validation: 16.00% of 50",
        "mistakes.png": "30 of 42 errors on validation, the most confident first",
    }
    cells = [axes for axes in drawn["mistakes.png"].axes if axes.get_title()]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in cells] == [*range(49, 19, -1)]
    assert cells[0].get_title() == "49.jpg\ndark, answered bright 1.00"


def test_the_end_of_a_run_is_told_and_summed_up(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(plots, "_save", lambda figure, path: None)
    run = Run(Path(shutil.copytree(trained, tmp_path / "lamps")))
    caplog.set_level("INFO", "catdog_edge")
    data = RunData(run.datasets())
    history = [EpochMetrics(n, 0.1, 0.5, 0.9, 0.4, 0.9, 1.0 + n / 9, 1.0) for n in (1, 2)]
    network, spec = load_checkpoint(run.weights)
    raw = {name: one for name, one in spec.trained_on.items() if name != "best_epoch"}
    save_checkpoint(run.weights, network.state_dict(), spec.replace(trained_on=raw))
    images = data.images(RECIPES["default"], spec.resize)
    plan = SimpleNamespace(precision="float32", recipe=RECIPES["accurate"])
    temperatures: list[float] = []
    monkeypatch.setattr(
        validation_report, "set_group_temperature", lambda _, value: temperatures.append(value)
    )
    trainer: Any = SimpleNamespace(
        best_epoch=lambda: history[1], history=history, plan=plan, data=images,
        device=torch.device("cpu"),
    )  # fmt: skip
    validation_report.finish(run, data, trainer)
    assert temperatures == [RECIPES["accurate"].group_temperature]
    text = (run.folder / "summary.json").read_text()
    summary = json.loads(text)
    assert text.startswith('{\n  "run": "lamps",')
    assert (summary["seconds_of_training"], summary["epochs"]) == (2.3, 2)
    assert summary["best"]["epoch"] == load_checkpoint(run.weights)[1].trained_on["best_epoch"] == 2
    found = summary["validation"]
    told, listed = caplog.records[-2:]
    share, low, high = (
        f"{100 * found[name]:.1f}" for name in ("accuracy", "accuracy_low", "accuracy_high")
    )
    assert told.getMessage() == (
        f"\ntrained in 2 s: right on {share} % of {found['pictures']} validation images "
        f"(95 % interval {low} to {high} %)"
    )
    assert told.style == {"bold": True}
    assert "kept      epoch 2 of 2: " in listed.getMessage()
    assert ("mistakes.png" in listed.getMessage()) is (found["accuracy"] < 1)
    assert "roc.png" not in listed.getMessage()
    assert "top class right" not in listed.getMessage(), "of one source there is no table"
    (row,) = summary["sources"]
    assert (row["name"], row["images"], row["answered"]) == ("lamps", found["pictures"], None)
    assert row["accuracy"] == [found[n] for n in ("accuracy", "accuracy_low", "accuracy_high")]
    rows = table(run.folder / "review.csv")
    assert f"review.csv: {len(rows)} doubtful" in listed.getMessage()
    validation_report.finish(run, data, trainer)  # after a kill before the summary, or by hand
    assert len(temperatures) == 1, "divided by it once"
    assert (run.folder / "summary.json").read_text() == text
