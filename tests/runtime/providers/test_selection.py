"""The provider of a model: the requested one, or with `auto` the fastest that starts."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from support.fresh_python import in_fresh_python
from support.paths import DATA, TINY

onnxruntime = pytest.importorskip("onnxruntime")

from catdog_edge import Classifier
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.providers import selection, start

ONE = start.Settings(1, spin=True)


def test_cpu_by_name_is_cpu() -> None:
    for asked in ("cpu", "CPUExecutionProvider", ["cpu"], [("cpu", {"use_arena": "1"})]):
        opened = selection.open_model(find_model(TINY), asked, ONE)
        assert opened.provider == "cpu"
        assert opened.session.get_providers() == ["CPUExecutionProvider"]


def test_auto_warns_once_for_each_that_does_not_start_and_answers() -> None:
    done = in_fresh_python(
        f"""
        import numpy as np
        from catdog_edge import Classifier, ProviderError
        from catdog_edge.runtime.providers import selection
        frame = np.full((40, 40, 3), (0, 0, 200), np.uint8)
        for _ in range(3):
            print(Classifier({str(TINY)!r})(frame).label)
        refused = 0
        for name in selection.accelerators():
            try:
                Classifier({str(TINY)!r}, provider=name)
            except ProviderError:
                refused += 1
        print(refused)
        """
    )
    *answers, refused = done.stdout.split()
    assert answers == ["cat"] * 3
    assert done.stderr.count("continuing without it") == int(refused), done.stderr
    # ONNX Runtime's own coloured lines are silent: their content is in ours.
    assert "\x1b[" not in done.stderr
    assert "onnxruntime:Default" not in done.stderr
    assert "EP Error" not in done.stdout + done.stderr


def test_only_the_cpu_needs_no_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(selection, "AUTO", ())
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    pets = Classifier(TINY)
    assert (pets.provider, pets.reason) == ("cpu", "the only one that is installed")
    assert not selection.cache_file().exists()


@pytest.mark.slow
def test_the_trial_is_made_once_and_remembered(azure: str) -> None:
    first = Classifier(TINY)
    assert first.provider in ("cpu", "azure")
    assert first.reason.startswith("fastest here of cpu ")
    assert "azure" in first.reason
    entries = json.loads(selection.cache_file().read_text())
    assert [entry["provider"] for entry in entries.values()] == [first.provider]
    # The choice is read, not made again.
    ((key, entry),) = entries.items()
    entry["provider"] = "azure"
    selection.cache_file().write_text(json.dumps({key: entry}))
    again = Classifier(TINY)
    assert again.provider == "azure"
    assert azure in again._session._session.get_providers()
    assert again.reason.endswith(", remembered")
    # Another model or other settings are another trial.
    Classifier(DATA / "tiny_rejecting.onnx")
    Classifier(TINY, threads=1)
    Classifier(TINY, threads=1, spin=False)
    assert len(json.loads(selection.cache_file().read_text())) == 4


def test_the_trial_can_be_switched_off(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_EDGE_AUTOTUNE", "0")
    pets = Classifier(TINY)
    assert pets.provider == "azure"
    assert "CATDOG_EDGE_AUTOTUNE=0" in pets.reason
    assert not selection.cache_file().exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"x": 3}',
        '{"x": {"provider": "no"}}',
        '{"x": {"provider": ["cpu"], "reason": "x"}}',
        '{"x": {"provider": "cpu", "reason": 3}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_cache_is_no_obstacle(azure: str, text: str) -> None:
    selection.cache_file().write_text(text)
    assert Classifier(TINY).reason.startswith("fastest here")
    assert Classifier(TINY).reason.endswith("remembered")


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    azure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "file" / "below"))
    assert Classifier(TINY).reason.startswith("fastest here")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system without a home folder")
def test_a_user_without_a_home_folder_is_no_obstacle(
    azure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pwd

    def nobody(number: int) -> object:
        raise KeyError(f"uid {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "CATDOG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Classifier(TINY).reason.startswith("fastest here")


class Broken:
    """The toy model's session, with answers of another kind."""

    def __init__(self, answer: float | Exception) -> None:
        self._session = start.start_session(find_model(TINY), [("CPUExecutionProvider", {})], ONE)
        self._answer = answer

    def get_inputs(self) -> list[object]:
        return self._session.get_inputs()  # type: ignore[no-any-return]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return [result * self._answer for result in self._session.run(names, feeds)]


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), RuntimeError("no such kernel")])
def test_a_model_that_answers_no_numbers_falls_to_the_cpu(answer: float | Exception) -> None:
    sessions: dict[str, object] = {"cpu": Broken(answer), "other": Broken(1.0)}
    chosen, reason = selection.time_sessions(sessions)  # type: ignore[arg-type]
    assert chosen == "cpu"
    assert reason.startswith("no trial, ")


class Slow(Broken):
    """A session whose calls take a known time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1.0)
        self._seconds = seconds

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        time.sleep(self._seconds)
        return super().run(names, feeds)


@pytest.mark.clock
@pytest.mark.slow
def test_the_fastest_is_chosen_and_its_figures_are_milliseconds() -> None:
    sessions: dict[str, object] = {"cpu": Slow(0.06), "quick": Slow(0.02), "slow": Slow(0.1)}
    began = time.perf_counter()
    chosen, reason = selection.time_sessions(sessions)  # type: ignore[arg-type]
    took = time.perf_counter() - began
    assert chosen == "quick"
    figures = dict(re.findall(r"(\w+) ([\d.]+) ms", reason))
    assert figures.keys() == sessions.keys()
    for name, least in (("cpu", 60), ("quick", 20), ("slow", 100)):
        assert least <= float(figures[name]) < 1000 * took / 3


def test_parity_is_part_of_the_trial() -> None:
    cpu, same, other = (
        start.start_session(find_model(DATA / name), [("CPUExecutionProvider", {})], ONE)
        for name in ("tiny.onnx", "tiny_rejecting.onnx", "tiny_leaning.onnx")
    )
    chosen, reason = selection.time_sessions({"cpu": cpu, "same": same, "other": other})
    assert chosen in ("cpu", "same")
    assert "other left out, its answers differ by" in reason
    assert "same left out" not in reason


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny_float.onnx", "tiny_batch4.onnx"])
def test_the_trials_input_is_what_the_session_takes(name: str) -> None:
    session = start.start_session(find_model(DATA / name), [("CPUExecutionProvider", {})], ONE)
    frames = selection.sample_input(session)
    answer = session.run(None, {"frames": frames})[0]
    assert len(answer) == len(frames) == (4 if "batch4" in name else 1)
    assert frames.std() > 0.1 * frames.max()
