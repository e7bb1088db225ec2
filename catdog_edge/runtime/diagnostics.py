"""Why an execution provider did not start, in words that a person can act on.

ONNX Runtime returns a CPU session, without an exception, where CUDA's libraries are
missing; the reason only goes to stderr, coloured, past Python. Here that text is caught and
turned into: which library, which version, what to install. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from catdog_edge.system import packages

REMEDIES = {
    "cuda": "install NVIDIA's driver and: pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": "install NVIDIA's driver, CUDA and TensorRT for it",
    "openvino": "it needs an Intel processor or GPU and: pip install 'catdog-edge[openvino]'",
    "coreml": "it needs macOS",
}

_LOADING = re.compile(r"([\w.+-]+\.(?:so|dll|dylib)[\w.]*): cannot open shared object file")
_WANTED = re.compile(r"Require (.+?)\. Please")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[m")
# A line of ONNX Runtime's logger: date, time, [severity:...].
_LOGGED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \[[VIWEF]:onnxruntime")

_PRINTED = ("Failed to load", "Please follow", "WARNING: ", "Skip loading CUDA")
"""How the lines begin that ONNX Runtime's `preload_dlls` prints to stdout."""

_redirecting = threading.Lock()


class Caught:
    """What was written while stderr was caught.

    Attributes:
        text: Filled when the block has ended; without colour codes.
    """

    text: str = ""


@contextlib.contextmanager
def caught_stderr() -> Iterator[Caught]:
    """Keep ONNX Runtime's own lines off stderr; give them back as text.

    Its loader writes to file descriptor 2 from C++, its `preload_dlls` prints to stdout.
    Lines that are not ONNX Runtime's, another thread's for instance, go on to where they
    were meant for when the block ends.
    """
    caught = Caught()
    printed = io.StringIO()
    with _redirecting, _store() as store:
        if store is None:
            yield caught
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            real = os.dup(2)
        except OSError:  # a service without a stderr at all
            yield caught
            return
        try:
            os.dup2(store.fileno(), 2)
            with contextlib.redirect_stdout(printed):
                yield caught
        finally:
            os.dup2(real, 2)
            store.seek(0)
            raw = store.read().decode(errors="replace")
            caught.text, others = _divide(raw)
            if others:
                os.write(real, others.encode())
            os.close(real)
    for line in printed.getvalue().splitlines(keepends=True):
        if line.lstrip("\x1b[0123456789m").startswith(_PRINTED):
            caught.text += _ESCAPES.sub("", line)
        else:
            print(line, end="")


def _store() -> contextlib.AbstractContextManager[IO[bytes] | None]:
    """A file without a name; `None` where there is no room for one: then nothing is caught."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        if sys.platform == "linux":  # a read-only device without a temporary folder
            with contextlib.suppress(OSError):
                return os.fdopen(os.memfd_create("stderr"), "w+b")
        return contextlib.nullcontext()


def _divide(raw: str) -> tuple[str, str]:
    """Split caught text into ONNX Runtime's part and everybody else's."""
    mine, others = [], []
    inside = False  # a coloured message of the logger runs on over several lines
    for line in raw.splitlines(keepends=True):
        plain = _ESCAPES.sub("", line)
        if _LOGGED.match(plain):
            inside = line.startswith("\x1b") and not line.rstrip("\n").endswith("\x1b[m")
            mine.append(plain)
        elif inside:
            inside = "\x1b[m" not in line
            mine.append(plain)
        else:
            others.append(line)
    return "".join(mine), "".join(others)


def explain(provider: str, text: str, build: str) -> str:
    """Turn what ONNX Runtime said into one line with the remedy.

    Args:
        provider: Short name, for instance `cuda`.
        text: What was caught, and the message of an exception.
        build: The installed build and its version, for instance `onnxruntime-gpu 1.31.1`.
    """
    text = _ESCAPES.sub("", text)
    library = _LOADING.search(text)
    wanted = _WANTED.search(text)
    wants = f" ({build} wants {wanted[1]})" if wanted else f" ({build})"
    if library:
        reason = f"the library {library[1]} failed to load{wants}"
    elif "no CUDA-capable device" in text or "CUDA failure 100" in text:
        reason = f"there is no CUDA device{wants}"
    elif "driver version is insufficient" in text:
        reason = f"the NVIDIA driver is too old{wants}"
    else:
        reason = f"{_gist(text) or 'ONNX Runtime left it out without a word'}{wants}"
    remedy = REMEDIES.get(provider, "read ONNX Runtime's page about it")
    if provider == "cuda" and "onnxruntime-gpu" in build:
        offered = packages.extras("onnxruntime-gpu")
        if not {"cuda", "cudnn"} <= offered:
            # An older build has no such extras, and pip would do nothing but warn.
            remedy = (
                "install NVIDIA's driver and a newer build: "
                "pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]'"
            )
    return f"{provider} does not run here: {reason}; {remedy}"


def _gist(text: str) -> str:
    """The first telling line of a message, without the place in ONNX Runtime's source."""
    for line in text.splitlines():
        plain = re.sub(r"^.*?\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
        plain = re.sub(r"^\S*onnxruntime_src\S* .*?\) ", "", plain)
        plain = re.sub(r"^[\d: .-]+\[[VIWEF]:onnxruntime[^\]]*\] ", "", plain).strip(" *")
        if plain:
            return plain[:200]
    return ""


def loading_error(provider: str) -> str:
    """Try to load a provider's library as ONNX Runtime would; the loader's complaint or ''."""
    import onnxruntime

    ending = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
    prefix = "" if sys.platform == "win32" else "lib"
    folder = Path(onnxruntime.__file__).parent / "capi"
    for part in ("shared", provider):
        file = folder / f"{prefix}onnxruntime_providers_{part}.{ending}"
        if file.is_file():
            try:
                ctypes.CDLL(str(file))
            except OSError as error:
                return str(error)
    return ""
