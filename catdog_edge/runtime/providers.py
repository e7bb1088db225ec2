"""Execution providers: which one runs a model here, chosen or asked for, and why.

Knows sessions and their options, nothing of frames or labels. What was asked for is
compared with what the session really has, since ONNX Runtime falls back in silence. How
`auto` chooses is in `automatic`.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catdog_edge.errors import ModelError, ProviderError
from catdog_edge.runtime import openvino
from catdog_edge.runtime.model_file import ModelFile, alone, opening
from catdog_edge.system import packages

if TYPE_CHECKING:
    import onnxruntime

NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Our short names and ONNX Runtime's."""

INSTEAD = "; or take the provider cpu"
"""How the message of a `ProviderError` ends."""

AZURE = "AzureExecutionProvider"
"""In every ordinary build; only a front for operators that a remote service runs."""

Asked = str | Sequence[str | tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Settings:
    """What every session of a classifier is made with.

    Attributes:
        threads: Intra-op threads, 1 or more.
        spin: Microseconds that idle threads spin before they sleep. `False` or 0: not at
            all. `True`: as long as ONNX Runtime does of itself; so do versions before 1.26,
            which cannot be told a number.

    Raises:
        ValueError: `spin` is negative or no whole number.
    """

    threads: int
    spin: bool | int

    def __post_init__(self) -> None:
        if not isinstance(self.spin, int) or self.spin < 0:
            raise ValueError(
                f"spin must be True, False or a whole number of microseconds, got {self.spin!r}"
            )


@dataclass(frozen=True)
class Opened:
    """A session that runs, and how it came about.

    Attributes:
        session: The session.
        provider: Short name of its first provider.
        reason: Why this one, in words for people.
    """

    session: onnxruntime.InferenceSession
    provider: str
    reason: str


def short_name(provider: str) -> str:
    """`cuda` for `CUDAExecutionProvider`; a name without a short form stays as it is."""
    for short, full in NAMES.items():
        if provider in (short, full):
            return short
    return provider


def parse(asked: Asked) -> list[tuple[str, dict[str, str]]]:
    """Read what a caller asks for into pairs of ONNX Runtime's name and its options.

    Raises:
        ValueError: It is neither a name nor a list of names and `(name, options)` pairs.
        ProviderError: It is one that runs no model.
    """
    listed = ", ".join(NAMES)
    wanted = f"provider must be auto, one of {listed}, or a list of names or (name, options)"
    entries: Sequence[Any] = [asked] if isinstance(asked, str) else asked
    if not isinstance(entries, Sequence) or not entries:
        raise ValueError(f"{wanted}; got {asked!r}")
    pairs = []
    for entry in entries:
        name, options = (entry, {}) if isinstance(entry, str) else _pair(entry, wanted)
        if name not in NAMES and not name.endswith("ExecutionProvider"):
            raise ValueError(f"{wanted}; got {name!r}")
        if name == AZURE:
            raise ProviderError(
                f"{AZURE} does not run here: it runs no model, it only calls remote services"
                f"{INSTEAD}"
            )
        texts = {str(key): str(value) for key, value in options.items()}
        pairs.append((NAMES.get(name, name), texts))
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"provider lists one name twice: {asked!r}")
    return pairs


def _pair(entry: Any, wanted: str) -> tuple[str, dict[str, Any]]:
    if (
        isinstance(entry, (tuple, list))
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], dict)
    ):
        return entry[0], entry[1]
    raise ValueError(f"{wanted}; got {entry!r}")


def open_session(file: ModelFile, asked: Asked, settings: Settings) -> Opened:
    """Open a model with the provider that was asked for, or the best that really starts.

    Args:
        file: The model.
        asked: `auto`, a short or full name, or a list of names or `(name, options)`.
        settings: Threads and spinning.

    Raises:
        ValueError: `asked` is not of that form.
        ModelError: The model cannot be loaded by any provider.
        ProviderError: A provider that was asked for by name does not run here.
        MissingPackageError: onnxruntime is not installed, or is broken.
    """
    packages.runtime()
    if asked == "auto":
        from catdog_edge.runtime import selection

        return selection.open_best(file, settings)
    pairs = parse(asked)
    session = start(file, pairs, settings)
    return Opened(session, short_name(pairs[0][0]), "asked for by name")


def start(
    file: ModelFile, pairs: Sequence[tuple[str, dict[str, str]]], settings: Settings
) -> onnxruntime.InferenceSession:
    """Open a session with exactly these providers (and the CPU for what they cannot run).

    Raises:
        ModelError: The model cannot be loaded, by the CPU provider either.
        ProviderError: One of the providers does not run here.
    """
    import onnxruntime

    cpu = NAMES["cpu"]
    if [name for name, _ in pairs] == [cpu]:
        options = session_options(settings, file)
        return opening(
            file,
            lambda: onnxruntime.InferenceSession(
                file.content, options, providers=list(pairs), enable_fallback=0
            ),
        )
    # From here on another provider is tried, and a start on the CPU alone does without this.
    from catdog_edge.runtime import diagnostics

    names = [name for name, _ in pairs]
    available = onnxruntime.get_available_providers()
    for name in names:
        if name not in available and not by_plugin(name):
            raise ProviderError(_not_built(short_name(name), available))
    # TensorRT hands what it cannot run to CUDA, and everything to the CPU.
    complete = [*pairs]
    if NAMES["tensorrt"] in names and NAMES["cuda"] not in names:
        complete.append((NAMES["cuda"], {}))
    if cpu not in names:
        complete.append((cpu, {}))
    failure: Exception | None = None
    session = None
    with diagnostics.caught_stderr() as caught:
        try:
            session = _make(file, complete, settings)
        except (ModelError, ProviderError):
            raise
        except Exception as error:  # each provider has its own kinds
            failure = error
    running = session.get_providers() if session is not None else []
    missing = [name for name in names if name not in running]
    if session is not None and not missing:
        return session
    if failure is not None:
        # Perhaps it is the model that is wrong: then the CPU provider says so, as ModelError.
        start(file, [(cpu, {})], settings)
    provider = short_name((missing or names)[0])
    text = f"{caught.text}\n{failure or ''}"
    if not text.strip():
        text = diagnostics.loading_error(provider)
    raise ProviderError(diagnostics.explain(provider, text, build()) + INSTEAD)


def _make(
    file: ModelFile, pairs: Sequence[tuple[str, dict[str, str]]], settings: Settings
) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = session_options(settings, file)
    plugged = next((pair for pair in pairs if by_plugin(pair[0])), None)
    name, values = plugged or pairs[0]
    if plugged is not None:
        chosen = openvino.choose_devices(values)
        others = [other for other, _ in pairs if other not in (name, NAMES["cpu"])]
        if others:
            raise ProviderError(
                f"openvino does not run together with {', '.join(map(short_name, others))}; "
                "list it alone or before cpu"
            )
        if pairs[0] is not plugged:
            raise ProviderError(
                "openvino does not run after cpu, which takes the whole model; list it alone or "
                "before cpu"
            )
        rest = {key: value for key, value in values.items() if key != "device_type"}
        rest.setdefault("num_of_threads", str(settings.threads))
        options.add_provider_for_devices(chosen, rest)
        return onnxruntime.InferenceSession(file.content, options, enable_fallback=0)
    if name in (NAMES["cuda"], NAMES["tensorrt"]):
        _preload(onnxruntime)
    return onnxruntime.InferenceSession(
        file.content, options, providers=list(pairs), enable_fallback=0
    )


def _preload(onnxruntime: Any) -> None:
    """Load CUDA's libraries from torch's or NVIDIA's wheels, where they come from there.

    ONNX Runtime itself looks only where the system's loader looks.
    """
    has_wheels = any(
        importlib.util.find_spec(package) is not None for package in ("torch", "nvidia")
    )
    if has_wheels and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.suppress(Exception):  # what is missing is told by the session
            onnxruntime.preload_dlls()


def by_plugin(name: str) -> bool:
    """Whether a provider comes as a plugin of the ordinary onnxruntime."""
    # Once registered, the plugin is listed among the available providers like a built-in one,
    # but does not start like one.
    return name == NAMES["openvino"] and openvino.installed()


def _not_built(provider: str, available: Sequence[str]) -> str:
    has = ", ".join(short_name(name) for name in available if name != AZURE)
    remedy = {
        "cuda": "pip uninstall -y onnxruntime, then pip install 'catdog-edge[gpu]'",
        "tensorrt": "pip uninstall -y onnxruntime, then pip install 'catdog-edge[gpu]'",
        "openvino": "pip install 'catdog-edge[openvino]'",
        "coreml": "it needs macOS",
    }.get(provider, "install the build of onnxruntime that has it")
    installed = packages.builds(packages.RUNTIMES)
    what = f"{build()} is"
    if len(installed) > 1 and provider in ("cuda", "tensorrt", "openvino"):
        what = f"{build()} overwrite each other's files, and what is left is"
        keep = "onnxruntime-openvino" if provider == "openvino" else "onnxruntime-gpu"
        if keep in installed:
            remedy = packages.mending(installed, keep)
    return (
        f"{provider} does not run here: {what} built without it (it has: {has}); {remedy}{INSTEAD}"
    )


def session_options(settings: Settings, file: ModelFile) -> onnxruntime.SessionOptions:
    """Options of a session: threads, spinning, and no lines on stderr: errors are raised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    alone(options, file)
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if settings.spin else "0"
    )
    if settings.spin and settings.spin is not True:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(settings.spin))
    return options


def build() -> str:
    """The installed build of onnxruntime and its version, for instance `onnxruntime 1.32.0`."""
    installed = packages.builds(packages.RUNTIMES)
    return " and ".join(f"{name} {version}" for name, version in installed.items())
