"""Packages that a flavour brings: missing, broken, or two builds of the same module at once.

Knows what to type to mend it, nothing of models. Standard library only, so that it also
speaks where nothing is installed.
"""

from __future__ import annotations

import contextlib
import importlib
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

_MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "numpy": (("numpy",), "ndarray"),
    "cv2": (OPENCVS, "imdecode"),
    "onnxruntime": (RUNTIMES, "InferenceSession"),
}
"""Modules of the runtime: the packages that install each, and what is in it when it is whole."""

_OURS = ("", "catdog_edge", "exporters", "benchmarks")


def builds(names: Sequence[str]) -> dict[str, str]:
    """Which of some packages are installed, with their versions."""
    import importlib.metadata  # slow to load, and a start that goes well does without

    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def extras(package: str) -> set[str]:
    """Names of the extras that an installed package offers; none where it is not installed."""
    import importlib.metadata

    try:
        return set(importlib.metadata.metadata(package).get_all("Provides-Extra") or ())
    except importlib.metadata.PackageNotFoundError:
        return set()


def runtime() -> Any:
    """The module `onnxruntime`, whole.

    Raises:
        MissingPackageError: It is not installed, does not load, or is only partly there.
    """
    return whole("onnxruntime")


def opencv() -> Any:
    """The module `cv2`, whole.

    Raises:
        MissingPackageError: It is not installed, does not load, or is only partly there.
    """
    return whole("cv2")


def whole(name: str) -> Any:
    """A module of the runtime with the function that it is there for.

    Raises:
        MissingPackageError: It is not installed, does not load, or is only partly there.
    """
    try:
        module = importlib.import_module(name)
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        raise known from error
    packages, wanted = _MODULES[name]
    if not hasattr(module, wanted):
        # What is left when one of two builds was uninstalled: a folder without a module.
        raise MissingPackageError(
            f"the module {name} is only partly there, as when one of two builds was "
            f"uninstalled; mend it with: {mending(builds(packages) or {packages[0]: ''})}"
        )
    return module


def explain(error: Exception) -> MissingPackageError | None:
    """One line for an import that failed; `None` for a defect of our own."""
    if isinstance(error, MissingPackageError):
        return error
    message = " ".join(str(error).split())
    library = re.search(r"(lib\S+\.so\S*): cannot open shared object file", message)
    if library:
        # OpenCV's build for desktops wants the libraries of a screen.
        return MissingPackageError(
            f"a package of the runtime needs the system library {library[1]}, which is not "
            "installed; on a device without a screen install catdog-edge[headless] in place of "
            "[cpu]: pip uninstall -y opencv-python, then pip install 'catdog-edge[headless]'"
        )
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package not in _OURS:
        extra = _FLAVOUR.get(package, "train")
        also = " (or [gpu], or [headless])" if extra == "cpu" else " beside your flavour"
        return MissingPackageError(
            f"this needs the package {package}, which is not installed; "
            f"install it with: pip install 'catdog-edge[{extra}]'{also}"
        )
    if "numpy.core.multiarray" in message or "_ARRAY_API" in message:
        # Extensions that were built for NumPy 1 do not load into NumPy 2, and the reverse.
        others = [*builds(OPENCVS), *builds(RUNTIMES)]
        version = "".join(f" {version}" for version in builds(["numpy"]).values())
        return MissingPackageError(
            f"a package of the runtime was built for another NumPy than the installed one{version} "
            f"({message[:80]}); mend it with: pip install --upgrade {' '.join(['numpy', *others])}"
        )
    if package in _OURS or not isinstance(error, ImportError):
        package = _raised_in(error)
    if not package:
        return None
    packages, _ = _MODULES.get(package, ((package,), ""))
    found = builds(packages) or {packages[0]: ""}
    return MissingPackageError(
        f"the package {package} is installed but does not load ({message[:160]}); "
        f"mend it with: {mending(found)}"
    )


def _raised_in(error: Exception) -> str:
    """The module of the runtime whose import raised an error, or an empty text."""
    place = error.__traceback__
    importing = ""
    while place is not None:
        frame = place.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        # Its functions raise errors as well; only what runs at its import is meant.
        if frame.f_code.co_name == "<module>" and name in _MODULES:
            importing = importing or name
        place = place.tb_next
    return importing


def mending(found: Mapping[str, str], keep: str | None = None) -> str:
    """What to type to have exactly one of several builds of a module.

    Args:
        found: Installed packages that overwrite each other's files.
        keep: The one to keep; `None`: the one that most likely was meant, the special one.
    """
    chosen = keep or max(found, key=len)
    return f"pip uninstall -y {' '.join(found)} && pip install {chosen}"
