"""Packages that a flavour brings: missing, broken, or two builds of the same module at once.

Knows what to type to mend it, nothing of models. Standard library only, so that it also
speaks where nothing is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from catdog_edge.errors import MissingPackageError

# From 1.29 on, ONNX Runtime reports to its maker from the import on: threads of its own, an
# identifier in the user's cache, and a forked child that waits for those threads at its exit.
# What looks through a camera does none of this; a program that wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Packages that all install the one module `onnxruntime`."""

OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""Packages that all install the one module `cv2`."""

_FLAVOUR = {"cv2": "cpu", "onnxruntime": "cpu", "numpy": "cpu"}
"""Modules of the runtime, and the flavour that brings them; all others come with [train]."""


def builds(names: Sequence[str]) -> dict[str, str]:
    """Which of some packages are installed, with their versions."""
    import importlib.metadata  # slow to load, and a start that goes well does without

    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def runtime() -> Any:
    """The module `onnxruntime`, whole.

    Raises:
        MissingPackageError: It is not installed, does not load, or is only partly there.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise (explain(error) or error) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What is left when one of two builds was uninstalled: a folder without a module.
        raise MissingPackageError(
            "the module onnxruntime is only partly there, as when one of two builds was "
            f"uninstalled; mend it with: {mending(builds(RUNTIMES) or {'onnxruntime': ''})}"
        )
    return onnxruntime


def explain(error: ImportError) -> MissingPackageError | None:
    """One line for an import that failed; `None` for a defect of our own."""
    message = str(error)
    library = re.search(r"(lib\S+\.so\S*): cannot open shared object file", message)
    if library:
        # OpenCV's build for desktops wants the libraries of a screen.
        return MissingPackageError(
            f"a package of the runtime needs the system library {library[1]}, which is not "
            "installed; on a device without a screen install catdog-edge[headless] in place of "
            "[cpu]: pip uninstall -y opencv-python, then pip install 'catdog-edge[headless]'"
        )
    package = (error.name or "").partition(".")[0]
    if package in ("", "catdog_edge", "exporters", "benchmarks"):
        return None
    if not isinstance(error, ModuleNotFoundError):
        return MissingPackageError(
            f"the package {package} is installed but does not load "
            f"({' '.join(message.split())[:160]}); install it again with: "
            f"pip install --force-reinstall --no-deps {package}"
        )
    extra = _FLAVOUR.get(package, "train")
    also = " (or [gpu], or [headless])" if extra == "cpu" else " beside your flavour"
    return MissingPackageError(
        f"this needs the package {package}, which is not installed; "
        f"install it with: pip install 'catdog-edge[{extra}]'{also}"
    )


def mending(found: Mapping[str, str], keep: str | None = None) -> str:
    """What to type to have exactly one of several builds of a module.

    Args:
        found: Installed packages that overwrite each other's files.
        keep: The one to keep; `None`: the one that most likely was meant, the special one.
    """
    chosen = keep or max(found, key=len)
    return f"pip uninstall -y {' '.join(found)} && pip install {chosen}"
