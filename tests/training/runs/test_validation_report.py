"""What the end of a run leaves: calibrated weights, figures and a summary."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from support.training_runs import RUN_FILES, table

from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs import validation_report
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
    dataset = Run(trained).dataset()
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
