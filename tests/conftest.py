"""Fixtures that several test files share. Imports nothing that the runtime does not need."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

# These need [train] from their imports on; the runtime's tests also run where it is absent.
collect_ignore = (
    [] if importlib.util.find_spec("torch") else ["training", "exporters", "benchmarks"]
)


def pytest_report_header() -> str | None:
    """Say what is left out, and why."""
    if not collect_ignore:
        return None
    return f"not collected, since torch is not installed: tests/{', tests/'.join(collect_ignore)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` where there is no NVIDIA GPU, and `clock` under emulation."""
    if os.environ.get("CATDOG_EMULATED"):  # set by .ci/arm64
        for item in items:
            if item.get_closest_marker("clock"):
                item.add_marker(
                    pytest.mark.skip(reason="time, /sys and limits of memory mean nothing emulated")
                )
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and (reason := _no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str | None:
    try:
        import torch

        found = torch.cuda.is_available()
    except ImportError:
        found = Path("/proc/driver/nvidia/version").exists()
    return None if found else "needs an NVIDIA GPU, and there is none here"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real photographs, beside the checkout or at `$CATDOG_SHARED`."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("CATDOG_SHARED", default))
    if not (folder / "cat_dog.zip").is_file():
        pytest.skip(f"the real photographs are not here ({folder}); set $CATDOG_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the tests away from the user's cache and settings."""
    if "CATDOG_TEST_CACHE" in os.environ:
        monkeypatch.setenv("CATDOG_CACHE", os.environ["CATDOG_TEST_CACHE"])
    else:
        monkeypatch.setenv("CATDOG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("CATDOG_DATA", "CATDOG_EDGE_THREADS", "CATDOG_EDGE_AUTOTUNE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """A test that sets PyTorch's threads does not change the sums of the next one."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def easy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders, `bright` and `dark`, of 60 small noisy pictures each: learnt at once."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
    import numpy as np

    folder = tmp_path_factory.mktemp("easy") / "lamps"
    rng = np.random.default_rng(11)
    for label, level in (("bright", 190), ("dark", 60)):
        (folder / label).mkdir(parents=True)
        for number in range(60):
            picture = rng.normal(level, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / label / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, cat, street, dog, street: four seconds each, at ten frames a second."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
    from support.cameras import clips

    kinds = ("cat", "street", "dog", "street")
    pictures = [cv2.resize(clips.drawing(kind, n), (320, 180)) for n, kind in enumerate(kinds)]
    frames = clips.four_scenes(pictures, 10, pan=False, dark=False)
    return clips.write(frames, tmp_path_factory.mktemp("stream") / "porch.avi", 10)
