"""Execution providers: what was asked for is what runs, or one line says why not."""

from __future__ import annotations

import sys

import pytest
from support.paths import DATA, TINY

onnxruntime = pytest.importorskip("onnxruntime")

from catdog_edge import Classifier, ModelError, ProviderError
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.providers import start

ONE = start.Settings(1, spin=True)


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
        offered = start.NAMES[name] in onnxruntime.get_available_providers()
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
        assert start.NAMES[name] in pets._session._session.get_providers()


def test_in_a_list_every_one_must_run() -> None:
    with pytest.raises(ProviderError, match="cuda does not run here"):
        Classifier(TINY, provider=[("cuda", {"device_id": 99}), "cpu"])


def test_a_bad_model_is_the_models_fault_with_any_provider() -> None:
    for name in ("cpu", "auto"):
        with pytest.raises(ModelError, match="opset 999"):
            Classifier(DATA / "bad_opset999.onnx", provider=name)


@pytest.mark.parametrize(
    ("spin", "allowed", "duration"),
    [(False, "0", None), (0, "0", None), (True, "1", None), (200, "1", "200")],
)
def test_settings_reach_the_session(spin: int, allowed: str, duration: str | None) -> None:
    settings = start.Settings(3, spin)
    session = start.start_session(find_model(TINY), [("CPUExecutionProvider", {})], settings)
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
    monkeypatch.setattr(start, "by_plugin", lambda name: name == start.NAMES["openvino"])
    looked: list[str] = []
    with pytest.raises(ProviderError, match="openvino does not run here"):
        Classifier(TINY, provider=asked)
    monkeypatch.setattr(start.openvino, "find_device", lambda kind: looked.append(kind))
    with pytest.raises(ProviderError, match=said):
        Classifier(TINY, provider=asked)
    assert looked == ["CPU"]
