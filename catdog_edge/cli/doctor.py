"""`catdog-edge doctor`: check versions, packages, providers, threads, cameras and disk.

Changes nothing. Each check imports what it examines, so the others run where a package is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from catdog_edge import __version__
from catdog_edge.cli.options import grouped_command, json_option
from catdog_edge.errors import FOLDER_GONE, CatdogError, MissingPackageError
from catdog_edge.runtime.threads import cgroup_quota, choose_threads, usable_processors
from catdog_edge.system import packages
from catdog_edge.system.console import note, plain
from catdog_edge.system.cpu import read_cpu
from catdog_edge.system.files import cache_folder

State = Literal["ok", "note", "bad"]

SELFTEST = Path(__file__).parents[1] / "runtime" / "selftest.onnx"
"""A model of a few hundred bytes: convolution, mean, softmax."""

LEAST_DISK = 200 * 2**20
"""Free bytes below which exports and caches soon fail."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was checked.
        state: `ok`; `note`: worth knowing; `bad`: a problem.
        text: What was found.
        remedy: What to do about it; may be empty.
        facts: The same for programs.
    """

    name: str
    state: State
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[self.state]
        remedy = f"\n{'':20}-> {plain(self.remedy)}" if self.remedy else ""
        return f"{mark}  {self.name:<12}  {plain(self.text)}{remedy}"


@dataclass(frozen=True)
class Report:
    """All findings."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return all(check.state != "bad" for check in self.checks)

    def to_json(self) -> str:
        """One JSON document, for bug reports."""
        checks = [asdict(check) for check in self.checks]
        return json.dumps({"healthy": self.healthy, "checks": checks}, indent=2)

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)


def examine() -> Report:
    """Run all checks."""
    return Report(tuple(_all()))


def _all() -> Iterator[Check]:
    yield _system()
    yield _processor()
    yield _threads()
    numpy = _module("numpy", ("numpy",))
    yield numpy
    if numpy.facts["loads"]:
        yield _module("cv2", packages.OPENCVS, "imdecode")
        onnxruntime = _module("onnxruntime", packages.RUNTIMES, "InferenceSession")
        yield onnxruntime
        if onnxruntime.facts["loads"]:
            yield from _providers()
            yield from _models()
    else:  # they would fail and print why, at length, and their remedies would be wrong
        yield Check("cv2", "note", "not tried: it needs numpy", facts={"loads": False})
        yield Check("onnxruntime", "note", "not tried: it needs numpy", facts={"loads": False})
    yield _cameras()
    yield from _disk()


def _system() -> Check:
    versions = {
        "catdog-edge": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
    }
    text = (
        f"catdog-edge {__version__}, Python {versions['python']}, "
        f"{versions['system']} ({versions['machine']})"
    )
    return Check("system", "ok", text, facts=versions)


def _processor() -> Check:
    cpu = read_cpu()
    name, features = cpu.name, cpu.features
    facts = {"name": name, "features": list(features)}
    if not features:
        return Check("processor", "note", f"{name}; its features are unknown", "", facts)
    fast = {"AVX-512 VNNI", "AVX VNNI", "AMX int8", "ARM dot product", "ARM int8 matrix"}
    if not fast & set(features):
        return Check(
            "processor",
            "note",
            f"{name}: {', '.join(features)}; no instructions for int8",
            "an int8 model may be no faster than float32 here; measure with: catdog-edge bench",
            facts,
        )
    return Check("processor", "ok", f"{name}: {', '.join(features)}", "", facts)


def _threads() -> Check:
    usable = len(usable_processors())
    try:
        threads = choose_threads()
    except CatdogError as error:
        return Check("threads", "bad", str(error), facts={"usable": usable})
    facts = {"threads": threads.count, "source": threads.source, "usable": usable}
    text = f"{threads.count}, from {threads.source}"
    if threads.count > usable:
        return Check(
            "threads",
            "bad",
            f"{text}; the process may use {usable} processors only",
            "threads beyond that wait for each other: lower or unset CATDOG_EDGE_THREADS",
            facts,
        )
    quota = cgroup_quota()
    if quota is not None and threads.count > max(1, quota):
        return Check(
            "threads",
            "bad",
            f"{text}; the cgroup quota grants {quota:g} processors only",
            "a thread too many is throttled and the others wait for it: lower or unset "
            "CATDOG_EDGE_THREADS",
            facts,
        )
    return Check("threads", "ok", text, "", facts)


def _module(name: str, builds: tuple[str, ...], wanted: str = "") -> Check:
    """Check that a module loads, is complete, and comes from one package only."""
    found = packages.builds(builds)
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    facts: dict[str, Any] = {"packages": found, "loads": False}
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken package raises what it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = packages.mending(found or {builds[0]: ""})
        known = packages.explain(error) or MissingPackageError(
            f"the module {name} does not load ({reason[:160]}); mend it with: {remedy}"
        )
        text, _, remedy = str(known).partition("; ")
        return Check(name, "bad", text, remedy, facts)
    facts |= {"loads": not wanted or hasattr(module, wanted), "file": module.__file__}
    if len(found) > 1:
        return Check(
            name,
            "bad",
            f"{len(found)} packages install the same module and overwrite each other: {listed}",
            packages.mending(found),
            facts,
        )
    if not facts["loads"]:
        remedy = packages.mending(found or {builds[0]: ""})
        return Check(name, "bad", f"the module {name} is only partly there", remedy, facts)
    version = getattr(module, "__version__", "of unknown version")
    facts["version"] = version
    return Check(name, "ok", listed or f"{name} {version}, not from a package", "", facts)


def _providers() -> Iterator[Check]:
    """Run the built-in model on every provider that is offered and check its output."""
    import numpy as np
    import onnxruntime

    from catdog_edge.runtime import providers, selection
    from catdog_edge.runtime.diagnostics import INSTEAD
    from catdog_edge.runtime.model_file import ModelFile

    file = ModelFile(SELFTEST)
    settings = providers.Settings(1, spin=False)
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[..., 2] = 1
    expected = np.exp([0.0, 0.0, 2.0]) / np.exp([0.0, 0.0, 2.0]).sum()
    available = onnxruntime.get_available_providers()
    names = [*selection.offered(), "cpu"]
    if providers.NAMES["tensorrt"] in available:
        names.append("tensorrt")
    for name in names:
        facts: dict[str, Any] = {"provider": name, "runs": False}
        # Every build for CUDA lists TensorRT, and hardly anybody installs it.
        state: State = "note" if name == "tensorrt" else "bad"
        try:
            session = providers.start(file, [(providers.NAMES[name], {})], settings)
            answer = np.asarray(session.run(None, {"frames": frames})[0], np.float64)[0]
        except CatdogError as error:
            text, _, remedy = str(error).removesuffix(INSTEAD).partition("; ")
            yield Check("provider", state, text, remedy, facts)
            continue
        except Exception as error:  # each provider has its own kinds
            text = f"{name} starts but does not run: {' '.join(str(error).split())[:200]}"
            yield Check("provider", state, text, "use the provider cpu", facts)
            continue
        difference = float(np.abs(answer - expected).max())
        facts |= {"runs": difference < 0.02, "difference": difference}
        if not facts["runs"]:
            text = f"{name} computes wrong results, off by {difference:.2g}"
            yield Check("provider", "bad", text, "use the provider cpu and report it", facts)
            continue
        yield Check("provider", "ok", f"{name} runs the built-in model", "", facts)


def _models() -> Iterator[Check]:
    from catdog_edge.runtime.model_file import ZOO, read_spec, shipped_models

    names = shipped_models()
    if not names:
        yield Check("models", "note", "no model is shipped; name one with --model")
    for name in names:
        try:
            spec = read_spec(str(ZOO / f"{name}.onnx"))
        except CatdogError as error:
            yield Check("models", "bad", str(error), "install catdog-edge again")
            continue
        size = (ZOO / f"{name}.onnx").stat().st_size
        text = f"{name}: {spec.architecture} {spec.precision}, {size / 1e6:.1f} MB"
        yield Check("models", "ok", text, "", {"name": name, "bytes": size})


def _cameras() -> Check:
    """List video devices without opening them: that would light a lamp."""
    if sys.platform != "linux":
        return Check("cameras", "note", "not listed on this system; try: catdog-edge stream")
    devices = sorted(Path("/dev").glob("video*"))
    names = {}
    for device in devices:
        title = Path("/sys/class/video4linux") / device.name / "name"
        raw = title.read_bytes() if title.is_file() else b""  # any bytes: a maker chose them
        names[str(device)] = raw.decode(errors="replace").strip()
    facts: dict[str, Any] = {"devices": names}
    if not devices:
        return Check("cameras", "note", "none found (/dev/video*); files and URLs work", "", facts)
    text = ", ".join(f"{device} {name}".strip() for device, name in names.items())
    if not any(os.access(device, os.R_OK | os.W_OK) for device in devices):
        return Check(
            "cameras",
            "bad",
            f"{text}; this user may not open them",
            "sudo usermod -aG video $USER, then log in again",
            facts,
        )
    return Check("cameras", "ok", text, "", facts)


def _disk() -> Iterator[Check]:
    """Check free space and permissions where caches, runs and temporary files go."""
    places = {"cache": cache_folder, "folder": Path.cwd, "temporary": _temporary}
    for purpose, find in places.items():
        try:
            place = find()
            existing = next(one for one in (place, *place.parents) if one.exists())
            free = shutil.disk_usage(existing).free
        except (OSError, CatdogError, StopIteration) as error:
            yield _no_place(purpose, error)
            continue
        facts = {"purpose": purpose, "path": str(place), "free_bytes": free}
        text = f"{free / 1e9:,.1f} GB free for {place} ({purpose})"
        if free < LEAST_DISK:
            yield Check("disk", "bad", text, "make room: an export or a cache soon fails", facts)
        elif not _writable(existing):
            state: State = "note" if purpose == "cache" else "bad"
            remedy = "set $CATDOG_CACHE to a folder that you may write to"
            if purpose != "cache":
                remedy = "change to a folder that you may write to"
            yield Check("disk", state, f"{place} ({purpose}) cannot be written to", remedy, facts)
        else:
            yield Check("disk", "ok", text, "", facts)


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _no_place(purpose: str, error: Exception) -> Check:
    """Report a folder that does not exist, like a deleted current folder."""
    facts = {"purpose": purpose, "path": None, "free_bytes": None}
    if purpose == "folder" and isinstance(error, FileNotFoundError):
        return Check("disk", "bad", FOLDER_GONE, "change to another one: cd", facts)
    remedy = {
        "cache": "set $CATDOG_CACHE to a folder that you may write to",
        "folder": "change to a folder that you may write to",
        "temporary": "set $TMPDIR to a folder that you may write to",
    }[purpose]
    reason = " ".join(str(error).split()) or type(error).__name__
    text = f"there is no folder to use ({purpose}: {reason})"
    return Check("disk", "note" if purpose == "cache" else "bad", text, remedy, facts)


def _writable(folder: Path) -> bool:
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder):
        return True
    return False


@grouped_command("doctor", "catdog-edge doctor", "catdog-edge doctor --json > report.json")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine for problems; exit code 1 if there are any."""
    report = examine()
    click.echo(report.to_json() if as_json else str(report))
    if not report.healthy:
        note("catdog-edge: there are problems; see the lines marked BAD")
        ctx.exit(1)
