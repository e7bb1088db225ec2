"""OpenVINO as a plugin of the ordinary onnxruntime: registering it and finding its devices.

The package is `onnxruntime-ep-openvino` (extra `[openvino]`). Knows nothing of models.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import Any

from catdog_edge.errors import ProviderError
from catdog_edge.system import packages

PACKAGE = "onnxruntime-ep-openvino"
MODULE = "onnxruntime_ep_openvino"
PROVIDER = "OpenVINOExecutionProvider"

_lock = threading.Lock()


def installed() -> bool:
    """Whether the plugin's package is here; it is not loaded."""
    return importlib.util.find_spec(MODULE) is not None


def version() -> str:
    """Version of the plugin's package, or an empty text."""
    return packages.builds([PACKAGE]).get(PACKAGE, "")


def devices() -> list[Any]:
    """Register the plugin once in this process and list the devices that it offers.

    Returns:
        `onnxruntime.OrtEpDevice`, empty where the plugin finds no hardware of its own.

    Raises:
        ProviderError: The plugin is not installed, does not load, or the installed
            onnxruntime is older than plugins.
    """
    import onnxruntime

    if not installed():
        raise ProviderError(
            "openvino does not run here: its plugin is not installed; install it with: "
            "pip install 'catdog-edge[openvino]'; or take the provider cpu"
        )
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise ProviderError(
            f"openvino does not run here: onnxruntime {onnxruntime.__version__} knows no plugins; "
            "upgrade it with: pip install --upgrade onnxruntime; or take the provider cpu"
        )
    with _lock:
        found = _listed(onnxruntime)
        if not found:
            try:
                library = importlib.import_module(MODULE).get_library_path()
                onnxruntime.register_execution_provider_library(PROVIDER, library)
            except Exception as error:
                # Registered before, with no device: that is no error.
                if "already" not in str(error):
                    raise ProviderError(
                        f"openvino does not run here: the plugin {PACKAGE} {version()} does not "
                        f"load into onnxruntime {onnxruntime.__version__} "
                        f"({' '.join(str(error).split())[:200]}); upgrade both with: "
                        "pip install --upgrade onnxruntime onnxruntime-ep-openvino; "
                        "or take the provider cpu"
                    ) from error
            found = _listed(onnxruntime)
    return found


def choose_devices(options: dict[str, str]) -> list[Any]:
    """The device that `device_type` names (default `CPU`), of those that the plugin offers.

    Raises:
        ProviderError: The plugin offers no such device here.
    """
    wanted = options.get("device_type", "CPU")
    found = devices()
    names = {device: _name(device) for device in found}
    chosen = [device for device in found if names[device] == wanted]
    if not chosen:
        offered = ", ".join(sorted(set(names.values()))) or "none, it runs on Intel hardware only"
        raise ProviderError(
            f"openvino does not run here: its plugin {version()} offers no device {wanted!r} on "
            f"this machine (offered: {offered}); name another device_type; or take the provider cpu"
        )
    return chosen[:1]


def _listed(onnxruntime: Any) -> list[Any]:
    return [one for one in onnxruntime.get_ep_devices() if one.ep_name == PROVIDER]


def _name(device: Any) -> str:
    """`CPU`, `GPU`, `GPU.1`, `NPU`."""
    named = dict(device.ep_metadata).get("ov_device")
    return str(named or device.device.type.name)
