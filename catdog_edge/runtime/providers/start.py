"""Execution providers: parse a request, and start a session with them.

The request is compared with the session's providers, since ONNX Runtime silently falls back to
the CPU. `selection` implements `auto`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catdog_edge.errors import CatdogError, ProviderError
from catdog_edge.runtime import onnxruntime_errors
from catdog_edge.runtime.model_file import ModelFile, load_session
from catdog_edge.runtime.onnxruntime_errors import unavailable
from catdog_edge.runtime.providers import openvino
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
"""Short names and ONNX Runtime's."""

GPU = ("cuda", "tensorrt")

AZURE = "AzureExecutionProvider"
"""In every ordinary build; only a front for operators that a remote service runs."""

TENSORRT_BATCH = ("N", 1)
"""The free dimension of an exported graph, and what it is fixed to for TensorRT."""

Asked = str | Sequence[str | tuple[str, dict[str, Any]]]
"""`auto`, a name, or a list of names and `(name, options)` pairs."""

Pairs = Sequence[tuple[str, dict[str, str]]]  # ONNX Runtime's names of providers and their options


@dataclass(frozen=True)
class Settings:
    """Options of every session of a classifier: intra-op threads, 1 or more; see `Classifier`.

    ONNX Runtime before 1.26 ignores the duration of spinning unless it is 0.
    """

    threads: int
    spin: bool | int

    def __post_init__(self) -> None:
        if not isinstance(self.spin, int) or self.spin < 0:
            raise ValueError(f"spin must be a bool or whole microseconds, got {self.spin!r}")


def short_provider_name(provider: str) -> str:
    """Return `cuda` for `CUDAExecutionProvider`; a name without a short form is unchanged."""
    return next((short for short, full in NAMES.items() if provider == full), provider)


def parse(asked: Asked) -> Pairs:
    """Parse a request into pairs of ONNX Runtime's name and its options.

    Raises:
        ValueError: It is not valid; see `Classifier`.
        ProviderError: A provider runs no model.
    """
    kinds = f"auto, one of {', '.join(NAMES)}, or a list of names or (name, options)"
    wanted = f"provider must be {kinds}"
    entries: Any = [asked] if isinstance(asked, str) else asked
    if not isinstance(entries, Sequence) or not entries:
        raise ValueError(f"{wanted}; got {asked!r}")
    pairs: dict[str, dict[str, str]] = {}
    for entry in entries:
        match entry:
            case str(name):
                options: dict[Any, Any] = {}
            case [str(name), dict(options)]:
                pass
            case _:
                raise ValueError(f"{wanted}; got {entry!r}")
        if name not in NAMES and not name.endswith("ExecutionProvider"):
            raise ValueError(f"{wanted}; got {name!r}")
        if name == AZURE:
            raise unavailable(AZURE, "it runs no model", "it only calls remote services")
        name = NAMES.get(name, name)
        if name in pairs:
            raise ValueError(f"provider lists one name twice: {asked!r}")
        pairs[name] = {str(key): str(value) for key, value in options.items()}
    return list(pairs.items())


def start_session(
    file: ModelFile, pairs: Pairs, settings: Settings
) -> onnxruntime.InferenceSession:
    """Open a session with exactly these providers, and the CPU for unsupported operators.

    Raises:
        ModelError: The model cannot be loaded, not even by the CPU provider.
        ProviderError: One of the providers does not run here; its cause is ONNX Runtime's error,
            if it raised one.
    """
    cpu = NAMES["cpu"]
    names = [name for name, _ in pairs]
    if names == [cpu]:
        return load_session(file, session_options(settings), providers=list(pairs))
    _check_build(names)
    from catdog_edge.runtime.providers.io_binding import GATE  # not loaded where the CPU runs

    # TensorRT falls back to CUDA, and every provider to the CPU.
    complete = dict(pairs)
    if NAMES["tensorrt"] in names:
        given = complete[NAMES["tensorrt"]]
        on_same_gpu = {key: value for key, value in given.items() if key == "device_id"}
        complete.setdefault(NAMES["cuda"], on_same_gpu)
    complete.setdefault(cpu, {})
    missing, message, cause = names, "", None
    try:
        with _quiet(), GATE:
            session = _create(file, list(complete.items()), settings)
        running = session.get_providers()
        missing = [name for name in names if name not in running]
        if not missing:
            return session
    except CatdogError:
        raise
    except Exception as error:  # each provider has its own kinds
        message, cause = str(error) or type(error).__name__, error
        # The model may be invalid: then the CPU provider raises ModelError.
        start_session(file, [(cpu, {})], settings)
    raise onnxruntime_errors.start_error(short_provider_name(missing[0]), message) from cause


def _create(file: ModelFile, pairs: Pairs, settings: Settings) -> onnxruntime.InferenceSession:
    """Create the session, without checking its providers."""
    options = session_options(settings)
    names = [name for name, _ in pairs]
    if NAMES["tensorrt"] in names:
        options.add_free_dimension_override_by_name(*TENSORRT_BATCH)
    plugged = next((name for name in names if by_plugin(name)), None)
    if plugged is None:
        if NAMES["cuda"] in names:
            _preload()
        return load_session(file, options, providers=list(pairs), explain=False)
    values = dict(pairs)[plugged]
    device = openvino.find_device(values.pop("device_type", "CPU"))
    others = [short_provider_name(name) for name in names if name not in (plugged, NAMES["cpu"])]
    if others or names[0] != plugged:
        with_what = f"together with {', '.join(others)}" if others else "after cpu"
        raise ProviderError(f"openvino does not run {with_what}; list it alone or before cpu")
    values.setdefault("num_of_threads", str(settings.threads))
    options.add_provider_for_devices([device], values)
    return load_session(file, options, explain=False)


def _preload() -> None:
    """Load CUDA libraries from PyTorch's or NVIDIA's wheels, which ONNX Runtime does not search."""
    import onnxruntime

    has_wheels = any(map(importlib.util.find_spec, ("torch", "nvidia")))
    if has_wheels and hasattr(onnxruntime, "preload_dlls"):
        # It prints what is missing; so does the error of the session.
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress ONNX Runtime's log on stderr of why a provider does not start."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # the default; the current level cannot be read


def by_plugin(name: str) -> bool:
    """Check whether a provider is a plugin of the standard onnxruntime package."""
    # Once registered, the plugin is listed among the available providers like a built-in one,
    # but does not start like one.
    return name == NAMES["openvino"] and openvino.installed()


def _check_build(names: Sequence[str]) -> None:
    """Reject providers that the installed build of onnxruntime does not have."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    lacking = [name for name in names if name not in available and not by_plugin(name)]
    if not lacking:
        return
    provider = short_provider_name(lacking[0])
    has = ", ".join(short_provider_name(name) for name in available if name != AZURE)
    gpu = f"pip uninstall -y onnxruntime, then {packages.install_command('gpu')}"
    remedies = {"cuda": gpu, "tensorrt": gpu, "coreml": "it needs macOS"}
    remedies["openvino"] = packages.install_command("openvino")
    remedy = remedies.get(provider, "install the build of onnxruntime that has it")
    build = onnxruntime_errors.installed_build()
    what = f"{build} is"
    installed = packages.versions(packages.RUNTIMES)
    if len(installed) > 1 and provider in GPU:
        what = f"{build} overwrite each other's files, and what is left is"
        if "onnxruntime-gpu" in installed:
            remedy = packages.repair_command(installed, "onnxruntime-gpu")
    raise unavailable(provider, f"{what} built without it (it has: {has})", remedy)


def session_options(settings: Settings) -> onnxruntime.SessionOptions:
    """Return options of a session: threads, spinning, no log on stderr (errors are raised)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    spins = "1" if settings.spin else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spins)
    if settings.spin and settings.spin is not True:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(settings.spin))
    return options
