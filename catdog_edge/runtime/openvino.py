"""OpenVINO as a plugin of the ordinary onnxruntime (package `onnxruntime-ep-openvino`)."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import Any

from catdog_edge.errors import first_line
from catdog_edge.runtime.diagnostics import not_here
from catdog_edge.system import packages

PACKAGE = "onnxruntime-ep-openvino"
MODULE = "onnxruntime_ep_openvino"
PROVIDER = "OpenVINOExecutionProvider"

_lock = threading.Lock()


def installed() -> bool:
    """Whether the plugin's package is installed; it is not loaded."""
    return importlib.util.find_spec(MODULE) is not None


def version() -> str:
    """Version of the plugin's package, or an empty text."""
    return packages.builds([PACKAGE]).get(PACKAGE, "")


def choose_device(device_type: str) -> Any:
    """Register the plugin and return the device of one type that it offers.

    Args:
        device_type: `CPU`, `GPU`, `GPU.1`, `NPU`.

    Returns:
        An `onnxruntime.OrtEpDevice`.

    Raises:
        ProviderError: The plugin is not installed or does not load, the installed onnxruntime is
            older than plugins, or there is no such device here.
    """
    named = {_name(device): device for device in reversed(_devices())}
    if device_type not in named:
        offered = ", ".join(sorted(named)) or "none, it runs on Intel hardware only"
        raise not_here(
            "openvino",
            f"its plugin {version()} offers no device {device_type!r} on this machine "
            f"(offered: {offered})",
            "name another device_type",
        )
    return named[device_type]


def _devices() -> list[Any]:
    """Register the plugin once in this process and list its devices."""
    import onnxruntime

    if not installed():
        raise not_here(
            "openvino",
            "its plugin is not installed",
            f"install it with: {packages.install_command('openvino')}",
        )
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise not_here(
            "openvino",
            f"onnxruntime {onnxruntime.__version__} has no plugins",
            "upgrade it with: pip install --upgrade onnxruntime",
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
                    raise not_here(
                        "openvino",
                        f"the plugin {PACKAGE} {version()} does not load into onnxruntime "
                        f"{onnxruntime.__version__} ({first_line(error)})",
                        f"upgrade both with: pip install --upgrade onnxruntime {PACKAGE}",
                    ) from error
            found = _listed(onnxruntime)
    return found


def _listed(onnxruntime: Any) -> list[Any]:
    return [one for one in onnxruntime.get_ep_devices() if one.ep_name == PROVIDER]


def _name(device: Any) -> str:
    """`CPU`, `GPU`, `GPU.1`, `NPU`."""
    named = dict(device.ep_metadata).get("ov_device")
    return str(named or device.device.type.name)
