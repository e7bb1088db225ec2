"""Check the runtime's packages: missing, broken, or two builds of the same module.

Standard library only, so that it works where nothing is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catdog_edge.errors import MissingPackageError

# From 1.29 on, ONNX Runtime reports to its maker from the import on: threads of its own, an
# identifier in the user's cache, and a forked child that waits for those threads at its exit.
# A program that wants this sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Packages that all install the one module `onnxruntime`."""

_OPENCV, _CONTRIB = "opencv-python", "opencv-contrib-python"
OPENCVS = (_OPENCV, f"{_OPENCV}-headless", _CONTRIB, f"{_CONTRIB}-headless")
"""Packages that all install the one module `cv2`."""

MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "numpy": (("numpy",), "ndarray"),
    "cv2": (OPENCVS, "imdecode"),
    "onnxruntime": (RUNTIMES, "InferenceSession"),
}
"""Modules of the runtime: the packages that install each, and a name in it when it is complete."""

_OURS = ("", "catdog_edge", "exporters", "benchmarks")


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of the named packages that are installed."""
    import importlib.metadata  # slow to load

    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation; it works in any folder.

    If the code runs from a checkout, it stays an editable install. Otherwise the extra is taken
    from the package's source (PEP 610): a folder, a wheel, a repository, or an index.
    """
    # Slow to load.
    import importlib.metadata
    import shlex
    import shutil
    import subprocess
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    pip = ["pip"]
    if Path(shutil.which("pip") or "").parent != Path(sys.executable).parent:
        pip = [sys.executable, "-m", "pip"]  # the environment is not activated
    checkout = Path(__file__).resolve().parents[2]
    text = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        text = importlib.metadata.distribution("catdog-edge").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    url, repository = origin.get("url", ""), origin.get("vcs_info")
    if (checkout / "pyproject.toml").is_file():
        what = ["-e", f"{checkout}[{extra}]"]
    elif repository:
        what = [f"catdog-edge[{extra}] @ {repository['vcs']}+{url}@{repository['commit_id']}"]
    elif url.startswith("file:"):
        what = [f"{url2pathname(urlsplit(url).path)}[{extra}]"]
    else:
        what = [f"catdog-edge[{extra}]" + (f" @ {url}" if url else "")]
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return join([*pip, "install", *what])


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module of an extra; `MissingPackageError` without it: `what`, and the remedy."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"install it with: {install_command(extra)}"
        raise MissingPackageError(f"{what}; {remedy}") from error


def import_complete(name: str) -> Any:
    """Import one of `MODULES`; `MissingPackageError` if that fails, or it is not complete."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        known = import_error(error)
        if known is None:
            raise
        raise known from error
    packages, wanted = MODULES[name]
    if not hasattr(module, wanted):
        # Left after one of two builds was uninstalled: a folder without a module.
        remedy = repair_command(versions(packages) or {packages[0]: ""})
        what = f"the module {name} is incomplete, as when one of two builds was uninstalled"
        raise MissingPackageError(f"{what}; fix it with: {remedy}")
    return module


def import_error(error: Exception) -> MissingPackageError | None:
    """Turn a failed import into one line with the remedy; `None` for a bug of this package."""
    if isinstance(error, MissingPackageError):
        return error
    message = " ".join(str(error).split())
    library = re.search(r"(lib\S+\.so\S*): cannot open shared object file", message)
    if library:
        # OpenCV's desktop build needs display libraries.
        return MissingPackageError(
            f"a package of the runtime needs the system library {library[1]}, which is not "
            "installed; on a device without a screen install [headless] in place of "
            f"[cpu]: pip uninstall -y opencv-python, then {install_command('headless')}"
        )
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package not in _OURS:
        extra, also = "train", " beside your flavour"
        if package in MODULES:
            extra, also = "cpu", " (or [gpu], or [headless])"
        what = f"this needs the package {package}, which is not installed"
        return MissingPackageError(f"{what}; install it with: {install_command(extra)}{also}")
    if "numpy.core.multiarray" in message or "_ARRAY_API" in message:
        # Extensions that were built for NumPy 1 do not load into NumPy 2, and the reverse.
        others = [*versions(OPENCVS), *versions(RUNTIMES)]
        version = "".join(f" {version}" for version in versions(["numpy"]).values())
        return MissingPackageError(
            f"a package of the runtime was built for another NumPy than the installed one{version} "
            f"({message[:80]}); fix it with: pip install --upgrade {' '.join(['numpy', *others])}"
        )
    if package in _OURS or not isinstance(error, ImportError):
        package = _raised_in(error)
    if not package:
        return None
    packages, _ = MODULES.get(package, ((package,), ""))
    remedy = repair_command(versions(packages) or {packages[0]: ""})
    what = f"the package {package} is installed but does not load ({message[:160]})"
    return MissingPackageError(f"{what}; fix it with: {remedy}")


def _raised_in(error: Exception) -> str:
    """Return the runtime module whose import raised an error, or an empty string."""
    place = error.__traceback__
    while place is not None:
        frame = place.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        # Its functions raise errors as well; only what runs at its import is meant.
        if frame.f_code.co_name == "<module>" and name in MODULES:
            return name
        place = place.tb_next
    return ""


def repair_command(found: Mapping[str, str], keep: str | None = None) -> str:
    """Return the command that keeps one of several builds of a module: `keep`, or the special one.

    `found` are the installed packages that overwrite each other's files.
    """
    return f"pip uninstall -y {' '.join(found)} && pip install {keep or max(found, key=len)}"
