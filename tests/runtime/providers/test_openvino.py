"""The plugin's devices, with an onnxruntime that pretends to have the hardware."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

onnxruntime = pytest.importorskip("onnxruntime")

from catdog_edge.errors import ProviderError
from catdog_edge.runtime.providers import openvino


def device(name: str | None, kind: str = "CPU", provider: str = openvino.PROVIDER) -> object:
    metadata = {} if name is None else {"ov_device": name}
    hardware = SimpleNamespace(type=SimpleNamespace(name=kind))
    return SimpleNamespace(ep_name=provider, ep_metadata=metadata, device=hardware)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries that were registered; the plugin offers its devices once it is."""
    plugin = ModuleType(openvino.MODULE)
    plugin.get_library_path = lambda: "libplugin.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, openvino.MODULE, plugin)
    monkeypatch.setattr(openvino, "installed", lambda: True)
    libraries: list[str] = []
    offered = [device("GPU.1"), device("NPU"), device(None, "CPU"), device("CPU", "GPU", "other")]
    monkeypatch.setattr(
        onnxruntime,
        "register_execution_provider_library",
        lambda name, library: libraries.append(library),
        raising=False,
    )
    monkeypatch.setattr(
        onnxruntime, "get_ep_devices", lambda: offered if libraries else [], raising=False
    )
    return libraries


@pytest.mark.parametrize(("kind", "metadata"), [("CPU", {}), ("GPU.1", {"ov_device": "GPU.1"})])
def test_the_plugin_is_registered_once(
    kind: str, metadata: dict[str, str], registered: list[str]
) -> None:
    for _ in range(2):
        found = openvino.find_device(kind)
        assert (found.ep_name, found.ep_metadata) == (openvino.PROVIDER, metadata)
    assert registered == ["libplugin.so"]


def test_another_device_names_those_that_are_offered(registered: list[str]) -> None:
    with pytest.raises(ProviderError, match=r"no device 'GPU' .*offered: CPU, GPU\.1, NPU"):
        openvino.find_device("GPU")


def test_a_plugin_that_does_not_load_is_one_line(
    registered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, library: str) -> None:
        raise RuntimeError("wrong version\nof something")

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", fail)
    with pytest.raises(ProviderError, match=r"does not load .*\(wrong version\); upgrade both"):
        openvino.find_device("CPU")


def test_a_plugin_that_is_registered_without_hardware_is_no_failure(
    registered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(name: str, library: str) -> None:
        raise RuntimeError("library is already registered")

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", again)
    with pytest.raises(ProviderError, match=r"offered: none, it runs on Intel hardware only"):
        openvino.find_device("CPU")


def test_an_onnxruntime_without_plugins_is_one_line(
    registered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    with pytest.raises(ProviderError, match=r"has no plugins; upgrade it"):
        openvino.find_device("CPU")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "installed", lambda: False)
    with pytest.raises(ProviderError, match=r"pip install .*\[openvino\]'"):
        openvino.find_device("CPU")
