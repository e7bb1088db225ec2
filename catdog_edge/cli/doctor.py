"""`catdog-edge doctor`: check versions, packages, providers, threads, cameras and disk.

Changes nothing. Each check imports what it examines, so the others run where a package is missing.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from catdog_edge.cli import options as common
from catdog_edge.errors import FOLDER_GONE, CatdogError, MissingPackageError, escaped, first_line
from catdog_edge.system import packages
from catdog_edge.system.console import note
from catdog_edge.system.cpu import read_cpu
from catdog_edge.system.files import cache_folder
from catdog_edge.system.threads import cgroup_quota, choose_threads, usable_processors
from catdog_edge.system.version import __version__

CheckState = Literal["ok", "note", "bad"]

SELFTEST = Path(__file__).parents[1] / "runtime" / "selftest.onnx"
"""A model of a few hundred bytes: convolution, mean, softmax."""

LEAST_DISK = 200 * 2**20  # free bytes below which exports and caches soon fail


@dataclass(frozen=True)
class Check:
    """One finding: `ok`, `note` or `bad`; `facts` are machine-readable."""

    name: str
    state: CheckState
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "note": "note", "bad": "BAD "}[self.state]
        remedy = f"\n{'':20}-> {escaped(self.remedy)}" if self.remedy else ""
        return f"{mark}  {self.name:<12}  {escaped(self.text)}{remedy}"


def run_checks() -> Iterator[Check]:
    """Run all checks."""
    yield _system()
    yield _processor()
    yield _threads()
    numpy = _module("numpy")
    yield numpy
    if numpy.facts["loads"]:
        yield _module("cv2")
        onnxruntime = _module("onnxruntime")
        yield onnxruntime
        if onnxruntime.facts["loads"]:
            yield from _providers()
            yield from _models()
    else:  # they would fail without it, and suggest wrong remedies
        for name in ("cv2", "onnxruntime"):
            yield Check(name, "note", "not tried: it needs numpy", facts={"loads": False})
    yield _cameras()
    yield _disk("cache", cache_folder, "set $CATDOG_CACHE to a folder that you may write to")
    yield _disk("folder", Path.cwd, "change to a folder that you may write to")
    temporary = "set $TMPDIR to a folder that you may write to"
    yield _disk("temporary", lambda: Path(tempfile.gettempdir()), temporary)


def _system() -> Check:
    facts = {"catdog-edge": __version__, "python": platform.python_version()}
    # Not platform.platform(): Python 3.13.0 cannot run its `uname -p` in a deleted folder.
    system = f"{platform.system()} {platform.release()}"
    facts |= {"system": system, "machine": platform.machine()}
    text = "catdog-edge {catdog-edge}, Python {python}, {system} ({machine})".format_map(facts)
    return Check("system", "ok", text, facts=facts)


def _processor() -> Check:
    cpu = read_cpu()
    facts = {"name": cpu.name, "features": list(cpu.features)}
    if not cpu.features:
        return Check("processor", "note", f"{cpu.name}; its features are unknown", "", facts)
    text = f"{cpu.name}: {', '.join(cpu.features)}"
    int8 = {"AVX-512 VNNI", "AVX VNNI", "AMX int8", "ARM dot product", "ARM int8 matrix"}
    if int8.intersection(cpu.features):
        return Check("processor", "ok", text, "", facts)
    remedy = "an int8 model may be no faster than float32 here; measure with: catdog-edge bench"
    return Check("processor", "note", f"{text}; no instructions for int8", remedy, facts)


def _threads() -> Check:
    usable, quota = len(usable_processors()), cgroup_quota()
    try:
        threads = choose_threads()
    except CatdogError as error:
        return Check("threads", "bad", str(error), facts={"usable": usable})
    facts = {"threads": threads.count, "source": threads.source, "usable": usable}
    text = f"{threads.count}, from {threads.source}"
    if threads.count > usable:
        text += f"; the process may use {usable} processors only"
    elif quota is not None and threads.count > max(1, quota):
        text += f"; the cgroup quota grants {quota:g} processors only"
    else:
        return Check("threads", "ok", text, "", facts)
    remedy = "threads beyond that wait for each other: lower or unset CATDOG_EDGE_THREADS"
    return Check("threads", "bad", text, remedy, facts)


def _module(name: str) -> Check:
    """Check that a module loads, is complete, and comes from one package only."""
    builds, wanted = packages.MODULES[name]
    found = packages.versions(builds)
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    remedy = packages.repair_command(found or {builds[0]: ""})
    facts: dict[str, Any] = {"packages": found, "loads": False}
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken package raises what it likes
        known = packages.import_error(error) or MissingPackageError(
            f"the module {name} does not load ({first_line(error)}); fix it with: {remedy}"
        )
        text, _, remedy = str(known).partition("; ")
        return Check(name, "bad", text, remedy, facts)
    version = getattr(module, "__version__", "of unknown version")
    loads = hasattr(module, wanted)
    facts |= {"loads": loads, "file": module.__file__, "version": version}
    if len(found) > 1:
        text = f"{len(found)} packages install the same module and overwrite each other: {listed}"
        return Check(name, "bad", text, remedy, facts)
    if not loads:
        return Check(name, "bad", f"the module {name} is incomplete", remedy, facts)
    return Check(name, "ok", listed or f"{name} {version}, not from a package", "", facts)


def _providers() -> Iterator[Check]:
    """Run the built-in model on every available provider and check its output."""
    import numpy as np
    import onnxruntime

    from catdog_edge.runtime.model_file import ModelFile
    from catdog_edge.runtime.onnxruntime_errors import INSTEAD
    from catdog_edge.runtime.providers import selection
    from catdog_edge.runtime.providers.start import NAMES, Settings, start_session

    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[..., 2] = 1
    expected = np.exp([0.0, 0.0, 2.0]) / np.exp([0.0, 0.0, 2.0]).sum()
    names = [*selection.accelerators(), "cpu"]
    if NAMES["tensorrt"] in onnxruntime.get_available_providers():
        names.append("tensorrt")
    for name in names:
        facts: dict[str, Any] = {"provider": name, "runs": False}
        # Every CUDA build lists TensorRT, which is rarely installed.
        state: CheckState = "note" if name == "tensorrt" else "bad"
        settings = Settings(1, spin=False)
        try:
            session = start_session(ModelFile(SELFTEST), [(NAMES[name], {})], settings)
            answer = np.asarray(session.run(None, {"frames": frames})[0], np.float64)[0]
            difference = float(np.abs(answer - expected).max())
            facts |= {"runs": difference < 0.02, "difference": difference}
            state, text, remedy = "ok", f"{name} runs the built-in model", ""
            if not facts["runs"]:
                text = f"{name} computes wrong results, off by {difference:.2g}"
                state, remedy = "bad", "use the provider cpu and report it"
        except CatdogError as error:
            text, _, remedy = str(error).removesuffix(INSTEAD).partition("; ")
        except Exception as error:  # each provider has its own kinds
            text = f"{name} starts but does not run: {first_line(error)}"
            remedy = "use the provider cpu"
        yield Check("provider", state, text, remedy, facts)


def _models() -> Iterator[Check]:
    from catdog_edge.runtime.model_file import ZOO, read_spec, shipped_models
    from catdog_edge.runtime.providers import nvidia, selection

    names = shipped_models()
    if not names:
        yield Check("models", "note", "no model is shipped; name one with --model")
    for name in names:
        file = ZOO / f"{name}.onnx"
        try:
            spec = read_spec(str(file))
        except CatdogError as error:
            yield Check("models", "bad", str(error), "install catdog-edge again")
            continue
        size, half = file.stat().st_size, nvidia.fp16_file(file)
        text = f"{name}: {spec.architecture} {spec.precision}, {size / 1e6:.1f} MB"
        slow = ""
        if half is not None:
            text += f"; on a GPU {half.name}, {half.stat().st_size / 1e6:.1f} MB"
        elif "cuda" in selection.accelerators():
            slow = nvidia.faster_form(file, "cuda", spec.precision)
        facts = {"name": name, "bytes": size, "gpu_form": half and half.name}
        yield Check("models", "note" if slow else "ok", text, slow, facts)


def _cameras() -> Check:
    """List video devices without opening them, which would turn on their LEDs."""
    if sys.platform != "linux":
        return Check("cameras", "note", "not listed on this system; try: catdog-edge stream")
    names = {}
    for device in sorted(Path("/dev").glob("video*")):
        title = Path("/sys/class/video4linux") / device.name / "name"
        raw = title.read_bytes() if title.is_file() else b""  # any bytes: set by the maker
        names[str(device)] = raw.decode(errors="replace").strip()
    facts: dict[str, Any] = {"devices": names}
    if not names:
        return Check("cameras", "note", "none found (/dev/video*); files and URLs work", "", facts)
    text = ", ".join(f"{device} {name}".strip() for device, name in names.items())
    if any(os.access(device, os.R_OK | os.W_OK) for device in names):
        return Check("cameras", "ok", text, "", facts)
    remedy = "sudo usermod -aG video $USER, then log in again"
    return Check("cameras", "bad", f"{text}; this user may not open them", remedy, facts)


def _disk(purpose: str, find: Callable[[], Path], remedy: str) -> Check:
    """Check that a folder, or its nearest parent, has free space and is writable."""
    facts: dict[str, Any] = {"purpose": purpose, "path": None, "free_bytes": None}
    bad: CheckState = "note" if purpose == "cache" else "bad"
    try:
        place = find()
        existing = next(one for one in (place, *place.parents) if one.exists())
        free = shutil.disk_usage(existing).free
    except (OSError, RuntimeError, StopIteration) as error:
        if purpose == "folder" and isinstance(error, FileNotFoundError):
            return Check("disk", "bad", FOLDER_GONE, "change to another one: cd", facts)
        text = f"there is no folder to use ({purpose}: {first_line(error)})"
        return Check("disk", bad, text, remedy, facts)
    facts |= {"path": str(place), "free_bytes": free}
    text = f"{free / 1e9:,.1f} GB free for {place} ({purpose})"
    if free < LEAST_DISK:
        advice = "free some disk space: exports and caches need more"
        return Check("disk", "bad", text, advice, facts)
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError:
        return Check("disk", bad, f"{place} ({purpose}) cannot be written to", remedy, facts)
    return Check("disk", "ok", text, "", facts)


@common.command("doctor", "catdog-edge doctor", "catdog-edge doctor --json > report.json")
@common.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine for problems; exit code 1 if there are any."""
    checks = list(run_checks())
    healthy = all(check.state != "bad" for check in checks)
    document = {"healthy": healthy, "checks": list(map(asdict, checks))}
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(map(str, checks)))
    if not healthy:
        note("catdog-edge: there are problems; see the lines marked BAD")
        ctx.exit(1)
