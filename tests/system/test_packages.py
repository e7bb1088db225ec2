"""How to install an extra, by where the package came from; modules that are broken or double."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest
from support.fresh_python import in_fresh_python
from support.paths import TINY

from catdog_edge.system import packages
from catdog_edge.system.packages import install_command

onnxruntime = pytest.importorskip("onnxruntime")
from catdog_edge.runtime.providers import start

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths and quotes of a POSIX shell")


@pytest.fixture(autouse=True)
def an_activated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package in `site-packages`, and the first `pip` on the PATH beside the interpreter."""
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "site-packages" / "a" / "b" / "c.py"))
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).with_name(name)))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'catdog-edge[cpu]'"),
        (
            {"url": "file:///home/ann/edge", "dir_info": {}},
            "pip install '/home/ann/edge[cpu]'",
        ),
        (
            {"url": "file:///mnt/a%20b/catdog_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install '/mnt/a b/catdog_edge-0.1.0-py3-none-any.whl[cpu]'",
        ),
        (
            {"url": "https://host/catdog_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'catdog-edge[cpu] @ https://host/catdog_edge-0.1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://host/edge.git", "vcs_info": {"vcs": "git", "commit_id": "1f"}},
            "pip install 'catdog-edge[cpu] @ git+https://host/edge.git@1f'",
        ),
    ],
)
def test_the_command_names_where_it_was_installed_from(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, command: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert install_command("cpu") == command


def test_code_of_a_checkout_stays_an_editable_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path.resolve() / "Ann's edge"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(
        packages, "__file__", str(checkout / "catdog_edge" / "system" / "packages.py")
    )
    told = str(checkout).replace("'", "'\"'\"'")
    assert install_command("train") == f"pip install -e '{told}[train]'"


def test_where_pip_is_that_of_another_environment_the_interpreter_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/elsewhere/bin/pip")
    assert install_command("cpu").startswith(f"{sys.executable} -m pip install ")


def test_without_metadata_it_is_the_published_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("headless") == "pip install 'catdog-edge[headless]'"


def test_two_builds_of_a_module_are_found(tmp_path: Path) -> None:
    """The packages' own records are what is read, here from a folder of them."""
    for name, version in (("onnxruntime", "1.32.0"), ("onnxruntime_gpu", "1.31.1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    program = """
        from catdog_edge.system import packages
        print(packages.versions(packages.RUNTIMES))
    """
    done = in_fresh_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.stdout.strip() == "{'onnxruntime': '1.32.0', 'onnxruntime-gpu': '1.31.1'}"
    assert packages.repair_command({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}) == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


@pytest.mark.parametrize("module", ["numpy", "cv2", "onnxruntime"])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "raise ImportError('numpy.core.multiarray failed to import')",
        "raise AttributeError('_ARRAY_API not found')",
        "raise ImportError('ERROR: recursion is detected during loading of binary extensions.')",
        "raise OSError('anything else')",
    ],
)
def test_a_broken_module_is_one_line_with_the_remedy(
    tmp_path: Path, module: str, content: str
) -> None:
    """In the library, on the command line, and in `doctor`, which goes on."""
    if module == "numpy" and not content:
        pytest.skip("others raise what they like without it")
    (tmp_path / f"{module}.py").write_text(content + "\n")
    program = f"""
        import sys
        from click.testing import CliRunner
        from catdog_edge.cli.main import main
        try:
            from catdog_edge import Classifier
            Classifier({str(TINY)!r})
        except ImportError as error:
            print(type(error).__name__, error)
        sys.modules.pop({module!r}, None)
        done = CliRunner().invoke(main, ["predict", "--model", {str(TINY)!r}, "x.png"])
        print(done.exit_code, done.stderr, end="")
        done = CliRunner().invoke(main, ["doctor"])
        print(done.exit_code, any("BAD   {module}" in line for line in done.stdout.splitlines()))
        print("disk" in done.stdout)
    """
    done = in_fresh_python(program, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    library, command, doctor, disk = done.stdout.splitlines()
    assert library.startswith("MissingPackageError ")
    assert command.startswith("1 catdog-edge: ")
    for line in (library, command):
        assert "pip " in line
    assert (doctor, disk) == ("1 True", "True")


def test_an_error_inside_a_function_of_a_package_is_not_an_error_of_its_import() -> None:
    namespace = {"__name__": "cv2.utils"}
    exec("def resize(image): raise TypeError(image)", namespace)
    with pytest.raises(TypeError) as raised:
        namespace["resize"]("no array")
    assert packages.import_error(raised.value) is None


def test_of_two_builds_the_remedy_takes_both_away(tmp_path: Path) -> None:
    if start.NAMES["cuda"] in onnxruntime.get_available_providers():
        pytest.skip("this build has CUDA")
    folder = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n"
    )
    program = f"""
        from catdog_edge import Classifier, ProviderError
        from catdog_edge.system import packages
        try:
            Classifier({str(TINY)!r}, provider="cuda")
        except ProviderError as error:
            print(error)
        print(packages.repair_command(packages.versions(packages.RUNTIMES)))
    """
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said, mending = in_fresh_python(program, **environment).stdout.splitlines()
    assert mending in said
    assert mending.endswith("pip install onnxruntime-gpu")
