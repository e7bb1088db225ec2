"""OpenVINO as a plugin of the ordinary onnxruntime (package `onnxruntime-ep-openvino`)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from typing import Any

from catdog_edge.errors import first_line
from catdog_edge.runtime.onnxruntime_errors import unavailable
from catdog_edge.system import packages

PACKAGE = "onnxruntime-ep-openvino"
MODULE = "onnxruntime_ep_openvino"
PROVIDER = "OpenVINOExecutionProvider"

_lock = threading.Lock()
_refusal = functools.partial(unavailable, "openvino")


def installed() -> bool:
    """Check whether the plugin's package is installed, without loading it."""
    return importlib.util.find_spec(MODULE) is not None


def version() -> str:
    """Return the version of the plugin's package, or an empty string."""
    return packages.versions([PACKAGE]).get(PACKAGE, "")


def find_device(device_type: str) -> Any:
    """Register the plugin and return its `OrtEpDevice` of one type: `CPU`, `GPU`, `GPU.1`, `NPU`.

    Raises:
        ProviderError: The plugin is not installed or does not load, the installed onnxruntime is
            older than plugins, or there is no such device here.
    """
    named = {_name(device): device for device in reversed(_devices())}
    if device_type not in named:
        offered = ", ".join(sorted(named)) or "none, it runs on Intel hardware only"
        what = f"its plugin {version()} offers no device {device_type!r} on this machine"
        raise _refusal(f"{what} (offered: {offered})", "name another device_type")
    return named[device_type]


def _devices() -> list[Any]:
    """Register the plugin once in this process and list its devices."""
    import onnxruntime

    here = f"onnxruntime {onnxruntime.__version__}"
    if not installed():
        install = packages.install_command("openvino")
        raise _refusal("its plugin is not installed", f"install it with: {install}")
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        upgrade = "upgrade it with: pip install --upgrade onnxruntime"
        raise _refusal(f"{here} has no plugins", upgrade)
    with _lock:
        found = _plugin_devices(onnxruntime)
        if not found:
            try:
                library = importlib.import_module(MODULE).get_library_path()
                onnxruntime.register_execution_provider_library(PROVIDER, library)
            except Exception as error:
                # Already registered, without a device: not an error.
                if "already" not in str(error):
                    raise _refusal(
                        f"the plugin {PACKAGE} {version()} does not load into {here} "
                        f"({first_line(error)})",
                        f"upgrade both with: pip install --upgrade onnxruntime {PACKAGE}",
                    ) from error
            found = _plugin_devices(onnxruntime)
    return found


def _plugin_devices(onnxruntime: Any) -> list[Any]:
    return [one for one in onnxruntime.get_ep_devices() if one.ep_name == PROVIDER]


def _name(device: Any) -> str:
    return str(dict(device.ep_metadata).get("ov_device") or device.device.type.name)
