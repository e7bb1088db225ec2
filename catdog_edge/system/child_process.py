"""Start another Python process, also from a frozen program.

There `sys.executable` is the program itself. With `freeze_support()` as the first statement of
its main module it can replace Python; PyInstaller adds that call automatically (see
`catdog_edge.system.pyinstaller`). Any other program without a Python is rejected.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

from catdog_edge.errors import CatdogError

FLAG = "--catdog-edge-child"

_PYTHON = re.compile(r"python|pypy|graalpy", re.IGNORECASE)

_supported = False


def freeze_support() -> None:
    """Let this frozen program run the child processes of catdog-edge.

    In a child process it runs the child's module and exits; elsewhere it only records the call.
    Call it first; in a program that is not frozen it has no effect.

    Examples:
        >>> from catdog_edge.system.child_process import freeze_support
        >>> if __name__ == "__main__":
        ...     freeze_support()
        ...     main()
    """
    global _supported
    _supported = True
    if sys.argv[1:2] == [FLAG] and len(sys.argv) > 2:
        module, sys.argv = sys.argv[2], sys.argv[2:]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as `__main__` in a separate process.

    Raises:
        CatdogError: There is no Python to run it.
    """
    if getattr(sys, "frozen", False):
        if _supported:
            return [sys.executable, FLAG, module, *arguments]
        raise CatdogError(
            "this needs a second process, and a frozen program has no Python for it; call "
            "catdog_edge.system.child_process.freeze_support() first of all in its main module"
        )
    return [interpreter(), "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Return this process's environment, with its `sys.path`."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths}


def interpreter() -> str:
    """Return the path of this Python's interpreter, also where Python is embedded in a program."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = ("python.exe", f"bin/python{version}", "bin/python3")
    beside = [Path(prefix, name) for prefix in (sys.prefix, sys.base_prefix) for name in names]
    for file in () if getattr(sys, "frozen", False) else (Path(sys.executable or ""), *beside):
        if _PYTHON.search(file.name) and file.is_file():
            return str(file)
    raise CatdogError(
        f"this needs a second process, and {sys.executable or 'this program'} is no Python "
        "interpreter; set sys.executable to one that has the same packages"
    )
