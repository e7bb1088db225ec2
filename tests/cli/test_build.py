from __future__ import annotations

import json
import time
from pathlib import Path

import onnxruntime
import pytest
from click.testing import CliRunner
from support.paths import TINY

from catdog_edge.cli import build
from catdog_edge.cli.main import main
from catdog_edge.runtime import classifier
from catdog_edge.runtime.providers.start import NAMES


def test_build_says_why_it_cannot() -> None:
    if NAMES["tensorrt"] in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime may have TensorRT")
    done = CliRunner().invoke(main, ["build", str(TINY)])
    assert done.exit_code == 1
    assert done.stderr.startswith("catdog-edge: tensorrt does not run here: ")
    assert done.stderr.count("\n") == 1


class Built:
    """Stands for a classifier on TensorRT, which takes long for its first call."""

    reason = "asked for by name; engine built in 1 s"

    def __init__(self, model: str, provider: str) -> None:
        self.path, self.provider, self.open = Path(model), provider, False

    def __enter__(self) -> Built:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def warmup(self) -> None:
        assert self.open
        assert self.provider == "tensorrt"
        time.sleep(0.2)


def test_build_reports_progress_and_where_the_engine_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifier, "Classifier", Built)
    monkeypatch.setattr(build, "EVERY", 0.05)
    done = CliRunner().invoke(main, ["build", str(TINY)])
    assert (done.exit_code, done.stdout) == (0, f"{TINY}: {Built.reason}\n")
    assert "building, 0 s" in done.stderr
    said = json.loads(CliRunner().invoke(main, ["build", str(TINY), "--json"]).stdout)
    assert said.pop("seconds") >= "0.2"
    assert said == {"model": str(TINY), "provider": "tensorrt", "reason": Built.reason}
