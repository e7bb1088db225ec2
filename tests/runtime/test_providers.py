"""Execution providers: what was asked for is what runs, or one line says why not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA

onnxruntime = pytest.importorskip("onnxruntime")

from catdog_edge import Classifier, ModelError, ProviderError
from catdog_edge.runtime import onnxruntime_errors, provider_selection, providers
from catdog_edge.runtime.io_binding import BoundRunner
from catdog_edge.runtime.model_file import find_model
from catdog_edge.system import packages

TINY = DATA / "tiny.onnx"
ONE = providers.Settings(1, spin=True)


def in_fresh_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **environment},
    )


def test_cpu_by_name_is_cpu() -> None:
    for asked in ("cpu", "CPUExecutionProvider", ["cpu"], [("cpu", {"use_arena": "1"})]):
        opened = provider_selection.open_model(find_model(TINY), asked, ONE)
        assert opened.provider == "cpu"
        assert opened.session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    "asked", ["gpu", "", [], [("cpu", 3)], ["cpu", "cpu"], [7], ["cpu", ("cuda",)], None, 3]
)
def test_what_is_no_provider_is_a_value_error(asked: object) -> None:
    with pytest.raises(ValueError, match="provider"):
        Classifier(TINY, provider=asked)  # type: ignore[arg-type]


def test_a_front_for_remote_services_is_no_provider() -> None:
    for asked in ("AzureExecutionProvider", ["AzureExecutionProvider", "cpu"]):
        with pytest.raises(ProviderError, match=r"runs no model.*or take the provider cpu"):
            Classifier(TINY, provider=asked)


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "coreml", "openvino"])
def test_asked_for_by_name_it_runs_or_says_why_not(name: str) -> None:
    try:
        pets = Classifier(TINY, provider=name)
    except ProviderError as error:
        message = str(error)
        assert message.startswith(f"{name} does not run here: ")
        assert "\n" not in message
        assert "\x1b" not in message
        assert message.endswith("or take the provider cpu")
        offered = providers.NAMES[name] in onnxruntime.get_available_providers()
        if name == "cuda" and offered and sys.platform == "linux":
            # The build for CUDA: what is missing is a library, a driver or a device.
            assert ".so" in message or "device" in message or "driver" in message
            assert f"onnxruntime-gpu {onnxruntime.__version__}" in message
            assert "pip install" in message
        elif name in ("cuda", "tensorrt") and not offered:
            assert "is built without it" in message
            assert "[gpu]'" in message
    else:
        assert pets.provider == name
        assert providers.NAMES[name] in pets._session._session.get_providers()


def test_in_a_list_every_one_must_run() -> None:
    with pytest.raises(ProviderError, match="cuda does not run here"):
        Classifier(TINY, provider=[("cuda", {"device_id": 99}), "cpu"])


def test_a_bad_model_is_the_models_fault_with_any_provider() -> None:
    for name in ("cpu", "auto"):
        with pytest.raises(ModelError, match="opset 999"):
            Classifier(DATA / "bad_opset999.onnx", provider=name)


def test_auto_warns_once_for_each_that_does_not_start_and_answers() -> None:
    done = in_fresh_python(
        f"""
        import numpy as np
        from catdog_edge import Classifier, ProviderError
        from catdog_edge.runtime import provider_selection
        frame = np.full((40, 40, 3), (0, 0, 200), np.uint8)
        for _ in range(3):
            print(Classifier({str(TINY)!r})(frame).label)
        refused = 0
        for name in provider_selection.offered():
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
    monkeypatch.setattr(provider_selection, "AUTO", ())
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    pets = Classifier(TINY)
    assert (pets.provider, pets.reason) == ("cpu", "the only one that is installed")
    assert not provider_selection.cache_file().exists()


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A second provider that really starts: ordinary builds of onnxruntime have this one."""
    name = "AzureExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        pytest.skip(f"this build has no {name}")
    monkeypatch.setitem(providers.NAMES, "azure", name)
    monkeypatch.setattr(provider_selection, "AUTO", ("azure",))
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    return name


@pytest.mark.slow
def test_the_trial_is_made_once_and_remembered(azure: str) -> None:
    first = Classifier(TINY)
    assert first.provider in ("cpu", "azure")
    assert first.reason.startswith("fastest here of cpu ")
    assert "azure" in first.reason
    entries = json.loads(provider_selection.cache_file().read_text())
    assert [entry["provider"] for entry in entries.values()] == [first.provider]
    # The choice is read, not made again.
    ((key, entry),) = entries.items()
    entry["provider"] = "azure"
    provider_selection.cache_file().write_text(json.dumps({key: entry}))
    again = Classifier(TINY)
    assert again.provider == "azure"
    assert azure in again._session._session.get_providers()
    assert again.reason.endswith(", remembered")
    # Another model or other settings are another trial.
    Classifier(DATA / "tiny_rejecting.onnx")
    Classifier(TINY, threads=1)
    Classifier(TINY, threads=1, spin=False)
    assert len(json.loads(provider_selection.cache_file().read_text())) == 4


def test_the_trial_can_be_switched_off(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_EDGE_AUTOTUNE", "0")
    pets = Classifier(TINY)
    assert pets.provider == "azure"
    assert "CATDOG_EDGE_AUTOTUNE=0" in pets.reason
    assert not provider_selection.cache_file().exists()


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
    provider_selection.cache_file().write_text(text)
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
        self._session = providers.start(find_model(TINY), [("CPUExecutionProvider", {})], ONE)
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
    chosen, reason = provider_selection.time_sessions(sessions)  # type: ignore[arg-type]
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
    chosen, reason = provider_selection.time_sessions(sessions)  # type: ignore[arg-type]
    took = time.perf_counter() - began
    assert chosen == "quick"
    figures = dict(re.findall(r"(\w+) ([\d.]+) ms", reason))
    assert figures.keys() == sessions.keys()
    for name, least in (("cpu", 60), ("quick", 20), ("slow", 100)):
        assert least <= float(figures[name]) < 1000 * took / 3


def test_parity_is_part_of_the_trial() -> None:
    cpu, same, other = (
        providers.start(find_model(DATA / name), [("CPUExecutionProvider", {})], ONE)
        for name in ("tiny.onnx", "tiny_rejecting.onnx", "tiny_leaning.onnx")
    )
    chosen, reason = provider_selection.time_sessions({"cpu": cpu, "same": same, "other": other})
    assert chosen in ("cpu", "same")
    assert "other left out, its answers differ by" in reason
    assert "same left out" not in reason


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny_float.onnx", "tiny_batch4.onnx"])
def test_the_trials_input_is_what_the_session_takes(name: str) -> None:
    session = providers.start(find_model(DATA / name), [("CPUExecutionProvider", {})], ONE)
    frames = provider_selection.sample_input(session)
    answer = session.run(None, {"frames": frames})[0]
    assert len(answer) == len(frames) == (4 if "batch4" in name else 1)
    assert frames.std() > 0.1 * frames.max()


@pytest.mark.parametrize(
    ("spin", "allowed", "duration"),
    [(False, "0", None), (0, "0", None), (True, "1", None), (200, "1", "200")],
)
def test_settings_reach_the_session(spin: int, allowed: str, duration: str | None) -> None:
    settings = providers.Settings(3, spin)
    session = providers.start(find_model(TINY), [("CPUExecutionProvider", {})], settings)
    options = session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == allowed
    key = "session.intra_op.spin_duration_us"
    if duration is None:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)
    else:
        assert options.get_session_config_entry(key) == duration


@pytest.mark.parametrize("spin", [-1, 0.5, "1", None])
def test_a_wrong_spin_is_a_value_error(spin: object) -> None:
    with pytest.raises(ValueError, match="spin must be"):
        Classifier(TINY, spin=spin)  # type: ignore[arg-type]


def test_bound_buffers_answer_like_plain_calls() -> None:
    """What runs on CUDA, with its buffers on the CPU."""
    session = providers.start(
        find_model(DATA / "tiny_known.onnx"), [("CPUExecutionProvider", {})], ONE
    )
    runner = BoundRunner(session, ["probabilities", "known"], "cpu", sizes=2)
    random = np.random.default_rng(0)
    kept = []
    for count in (1, 3, 1, 2, 4, 3, 1):
        batch = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        expected = session.run(None, {"frames": batch})
        kept.append((runner(batch), expected))
    for got, expected in kept:  # later calls must not write into earlier results
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "libcublasLt.so.13: cannot open shared object file: No such file or directory",
            "the library libcublasLt.so.13 failed to load",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "there is no CUDA device"),
        ("CUDA driver version is insufficient for CUDA runtime", "the NVIDIA driver is too old"),
        (
            "/onnxruntime_src/onnxruntime/python/state.cc:729 void onnxruntime::Register() "
            "[ONNXRuntimeError] : 1 : FAIL : Please install TensorRT\nlibraries.",
            "Please install TensorRT libraries.",
        ),
    ],
)
def test_why_a_provider_does_not_start_is_one_line(
    message: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_errors, "installed_build", lambda: "onnxruntime-gpu 1.31.1")
    assert str(onnxruntime_errors.start_error("cuda", message)) == (
        f"cuda does not run here: {reason} (onnxruntime-gpu 1.31.1); install NVIDIA's driver and: "
        "pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]'; or take the provider cpu"
    )


def test_a_process_without_stderr_is_no_obstacle() -> None:
    program = f"""
        import os
        os.close(2)
        from catdog_edge import Classifier, ProviderError
        import numpy as np
        try:
            Classifier({str(TINY)!r}, provider="cuda")
        except ProviderError as error:
            print("said")
        print(Classifier({str(TINY)!r})(np.zeros((4, 4, 3), np.uint8)).labels)
    """
    assert "('cat', 'dog')" in in_fresh_python(program).stdout


def test_two_builds_of_a_module_are_found(tmp_path: Path) -> None:
    """The packages' own records are what is read, here from a folder of them."""
    for name, version in (("onnxruntime", "1.32.0"), ("onnxruntime_gpu", "1.31.1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    program = """
        from catdog_edge.system import packages
        print(packages.builds(packages.RUNTIMES))
    """
    done = in_fresh_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.stdout.strip() == "{'onnxruntime': '1.32.0', 'onnxruntime-gpu': '1.31.1'}"
    assert packages.mending({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}) == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


@pytest.mark.parametrize("module", ["numpy", "cv2", "onnxruntime"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "raise ImportError('numpy.core.multiarray failed to import')",
        "raise AttributeError('_ARRAY_API not found')",
        "raise ImportError('ERROR: recursion is detected during loading of binary extensions.')",
        "raise OSError('anything else')",
    ],
)
def test_a_broken_module_is_one_line_with_the_remedy(
    tmp_path: Path, module: str, content: str
) -> None:
    """In the library, on the command line, and in `doctor`, which goes on."""
    if module == "numpy" and not content:
        pytest.skip("others raise what they like without it")
    (tmp_path / f"{module}.py").write_text(content + "\n")
    program = f"""
        import sys
        from click.testing import CliRunner
        from catdog_edge.cli.main import main
        try:
            from catdog_edge import Classifier
            Classifier({str(TINY)!r})
        except ImportError as error:
            print(type(error).__name__, error)
        sys.modules.pop({module!r}, None)
        done = CliRunner().invoke(main, ["predict", "--model", {str(TINY)!r}, "x.png"])
        print(done.exit_code, done.stderr, end="")
        done = CliRunner().invoke(main, ["doctor"])
        print(done.exit_code, any("BAD   {module}" in line for line in done.stdout.splitlines()))
        print("disk" in done.stdout)
    """
    done = in_fresh_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    library, command, doctor, disk = done.stdout.splitlines()
    assert library.startswith("MissingPackageError ")
    assert command.startswith("1 catdog-edge: ")
    for line in (library, command):
        assert "pip " in line
    assert (doctor, disk) == ("1 True", "True")


def test_of_two_builds_the_remedy_takes_both_away(tmp_path: Path) -> None:
    if providers.NAMES["cuda"] in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    folder = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n"
    )
    program = f"""
        from catdog_edge import Classifier, ProviderError
        from catdog_edge.system import packages
        try:
            Classifier({str(TINY)!r}, provider="cuda")
        except ProviderError as error:
            print(error)
        print(packages.mending(packages.builds(packages.RUNTIMES)))
    """
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said, mending = in_fresh_python(program, **environment).stdout.splitlines()
    assert mending in said
    assert mending.endswith("pip install onnxruntime-gpu")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["cpu", "openvino"], "after cpu"),
        (["azure", "openvino", "cpu"], "together with azure"),
        (["openvino", "azure"], "together with azure"),
    ],
)
def test_the_plugin_is_looked_up_wherever_it_stands(
    asked: list[str], said: str, azure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hardware is not here: what it offers is put in its place, the rest is real."""
    monkeypatch.setattr(providers, "by_plugin", lambda name: name == providers.NAMES["openvino"])
    looked: list[str] = []
    with pytest.raises(ProviderError, match="openvino does not run here"):
        Classifier(TINY, provider=asked)
    monkeypatch.setattr(providers.openvino, "find_device", lambda kind: looked.append(kind))
    with pytest.raises(ProviderError, match=said):
        Classifier(TINY, provider=asked)
    assert looked == ["CPU"]
