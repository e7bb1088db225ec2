"""The rule of the house, seen from a fresh interpreter: help and import stay light."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from support.paths import TINY

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "cv2", "matplotlib", "onnxscript", "yaml")
TRAINING = ("torch", "torchvision", "onnx", "onnxscript", "onnxslim", "matplotlib", "yaml")


def loaded_after(program: str, watched: tuple[str, ...] = HEAVY) -> tuple[list[str], str]:
    """Run a program in a fresh interpreter; which of the watched modules it has loaded."""
    ending = f"""
import sys as _sys
print()
print("LOADED", *[name for name in {watched!r} if name in _sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) + ending],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *output, last = done.stdout.rstrip().splitlines()
    assert last.startswith("LOADED")
    return last.split()[1:], "\n".join(output)


def help_of(*arguments: str) -> str:
    return f"""
        from catdog_edge.cli.main import main
        main({[*arguments, "--help"]!r}, standalone_mode=False)
    """


def commands() -> list[str]:
    from catdog_edge.cli.main import main

    return sorted(main.commands)


def test_the_watch_sees_what_it_watches_for() -> None:
    pytest.importorskip("cv2")
    loaded, _ = loaded_after("import cv2")
    assert loaded == ["cv2"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded, _ = loaded_after("import catdog_edge; print(catdog_edge.__version__, dir(catdog_edge))")
    assert loaded == []


def test_help_loads_nothing_heavy() -> None:
    loaded, output = loaded_after(help_of())
    assert loaded == []
    for command in commands():
        assert command in output


@pytest.mark.parametrize("command", commands())
def test_every_help_loads_nothing_heavy(command: str) -> None:
    loaded, output = loaded_after(help_of(command))
    assert loaded == []
    assert f"{command} [OPTIONS]" in output


def test_help_answers_where_nothing_but_click_is_installed() -> None:
    """Every heavy module, and NumPy, made impossible to import."""
    blocked = (*HEAVY, "numpy")
    program = f"""
        import sys
        for name in {blocked!r}:
            sys.modules[name] = None
        from catdog_edge.cli.main import main
        main(["--help"], standalone_mode=False)
        for command in {commands()!r}:
            main([command, "--help"], standalone_mode=False)
        for name in {blocked!r}:
            del sys.modules[name]
    """
    loaded, output = loaded_after(program)
    assert loaded == []
    assert output.count("--help") >= len(commands()) + 1


def test_the_runtime_never_loads_training_packages() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    model = TINY
    program = f"""
        import numpy as np
        from catdog_edge import Classifier
        from catdog_edge.cli import doctor, predict
        from catdog_edge.images import draw
        print(Classifier({str(model)!r})(np.zeros((8, 8, 3), np.uint8)))
    """
    loaded, _ = loaded_after(program, TRAINING)
    assert loaded == []


def test_a_classifier_on_the_cpu_loads_no_module_that_it_does_not_need() -> None:
    """Each of these costs a small device memory and time; `onnxruntime` loads some itself."""
    watched = (
        *("hashlib", "shutil", "bz2", "lzma", "tempfile", "random", "zipfile", "base64", "shlex"),
        *("logging", "click", "unicodedata", "urllib.request", "importlib.metadata"),
        *(
            f"catdog_edge.runtime.{name}"
            for name in ("providers.nvidia", "providers.io_binding", "heat_map")
        ),
        *("catdog_edge.camera", "catdog_edge.events", "catdog_edge.system.log_to_stderr"),
    )
    program = f"""
        import sys
        import cv2, numpy, onnxruntime
        others = set(sys.modules)
        from catdog_edge import Classifier
        Classifier({str(TINY)!r}, provider="cpu")(numpy.zeros((8, 8, 3), numpy.uint8))
        for name in others.intersection({watched!r}):
            del sys.modules[name]
    """
    loaded, _ = loaded_after(program, watched)
    assert loaded == []


@pytest.mark.parametrize(
    ("module", "extra"), [("cv2", "cpu"), ("onnxruntime", "cpu"), ("numpy", "cpu")]
)
def test_a_missing_flavour_is_one_line_with_the_remedy(module: str, extra: str) -> None:
    model = TINY
    program = f"""
        import sys
        sys.modules[{module!r}] = None
        from catdog_edge.cli.main import main
        try:
            main(["predict", "--model", {str(model)!r}, {str(model)!r}])
        except SystemExit as exit:
            print("EXIT", exit.code)
        try:
            from catdog_edge import Classifier
            Classifier({str(model)!r})
        except ImportError as error:  # also what an `except ImportError` of theirs catches
            print(type(error).__name__, error)
        del sys.modules[{module!r}]
    """
    _, output = loaded_after(program)
    assert "EXIT 1" in output
    assert "MissingPackageError" in output
    assert f"[{extra}]'" in output
