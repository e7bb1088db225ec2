"""Model files: finding one, loading it with ONNX Runtime, reading its spec.

Only onnxruntime reads the file; the `onnx` package is not needed.
"""

from __future__ import annotations

import os
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog_edge import __version__
from catdog_edge.errors import FOLDER_GONE, ModelError
from catdog_edge.runtime import diagnostics
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system import packages
from catdog_edge.system.console import plain

if TYPE_CHECKING:
    import onnxruntime

DEFAULT = "fast"
"""The shipped model that is taken when none is named."""

ZOO = Path(__file__).parents[1] / "zoo"

INPUT = "frames"
PROBABILITIES = "probabilities"
KNOWN = "known"
LOGITS = "logits"
"""Names of the graph's input and outputs; see `ModelSpec` for what they hold."""

Pickled = tuple[str | None, str | None, bytes | None]
"""A model on its way to another process: name of a shipped one, or path, or bytes."""


class LoadError(ModelError):
    """ONNX Runtime cannot load a file; `reason` and `remedy` are without its name."""

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class ModelFile:
    """A model to load: a file or bytes.

    Attributes:
        path: The file, absolute; `None` where bytes were given.
        data: The bytes of a model; `None` where there is a file.
        shipped: Its name, where it was asked for as one of the models of the package.
        called: Its name in errors, in place of its path.
    """

    path: Path | None
    data: bytes | None = None
    shipped: str | None = None
    called: str | None = None

    @property
    def name(self) -> str:
        """Its name in errors."""
        return self.called or (str(self.path) if self.path else "the model given as bytes")

    @property
    def content(self) -> str | bytes:
        """What ONNX Runtime loads."""
        return str(self.path) if self.path is not None else self.data or b""

    def to_pickle(self) -> Pickled:
        """What names this model on another machine; see `from_pickle`."""
        if self.shipped is not None:
            return self.shipped, None, None
        return None, None if self.path is None else str(self.path), self.data

    def stamp(self) -> tuple[int, int, int] | None:
        """Size, time of change and inode of the file; `None` for bytes.

        Raises:
            ModelError: The file is not there any more.
        """
        if self.path is None:
            return None
        try:
            status = self.path.stat()
        except OSError as error:
            raise ModelError(
                f"{self.name} cannot be read any more ({error.strerror}); copy it back or make a "
                "new Classifier"
            ) from error
        return status.st_size, status.st_mtime_ns, status.st_ino

    def digest(self) -> str:
        """SHA-256 of the bytes of the model, in hex."""
        import hashlib  # slow to load

        data = self.path.read_bytes() if self.path is not None else self.data or b""
        return hashlib.sha256(data).hexdigest()


def from_pickle(pickled: Pickled) -> str | bytes | None:
    """Return the argument of `find_model` for a model that came from another process.

    Raises:
        ModelError: It is not here.
    """
    shipped, path, data = pickled
    if shipped is not None and shipped not in shipped_models():
        raise ModelError(
            f"this classifier travelled by the name of its shipped model, {shipped}, which "
            f"catdog-edge {__version__} does not have here; install the version that it came from"
        )
    if path is not None and not os.path.exists(path):  # noqa: PTH110 - False for any bad path
        raise ModelError(
            f"this classifier travelled by the path of its model, {path}, and no such file is "
            "here; copy it there, or make the classifier from its bytes, which travel along"
        )
    return shipped or path or data


def shipped_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(file.stem for file in ZOO.glob("*.onnx"))


def find_model(model: str | os.PathLike[str] | bytes | None) -> ModelFile:
    """Turn what a caller names into a file or bytes.

    Args:
        model: A path, the bytes of a model, the name of a shipped model, or `None` for the
            default one.

    Raises:
        ModelError: There is no such file or shipped model, or it cannot be an ONNX model.
        TypeError: `model` is of another kind.
    """
    if model is None:
        model = DEFAULT
    if isinstance(model, (bytes, bytearray, memoryview)):
        if not len(model):
            raise ModelError("the model given as bytes is empty; read the whole file first")
        return ModelFile(None, bytes(model))
    if isinstance(model, str) and model in shipped_models():
        return ModelFile(ZOO / f"{model}.onnx", shipped=model)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            "a model is the path of an .onnx file, the bytes of one, the name of a shipped model "
            f"or None, got {type(model).__name__} {reprlib.repr(model)}".replace("\n", " ")
        )
    path = Path(os.fsdecode(model))
    _check_file(path)
    try:
        absolute = path.absolute()
        str(absolute).encode()
    except UnicodeEncodeError:
        raise ModelError(
            f"{plain(str(path))}: onnxruntime opens no path that is not UTF-8; rename the file or "
            "its folder, or give the bytes"
        ) from None
    return ModelFile(absolute)


def _check_file(path: Path) -> None:
    """Refuse what is no readable file, or certainly no ONNX model."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelError(_not_found(path)) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); check its name and permissions"
        ) from error
    wrong = None
    if stat.S_ISDIR(status.st_mode):
        wrong = "is a folder; name the .onnx file in it"
    elif not stat.S_ISREG(status.st_mode):
        wrong = "is a pipe or a device; read it and give the bytes"
    elif path.suffix in (".pt", ".pth", ".ckpt"):
        wrong = (
            f"is a checkpoint, not an ONNX file; make one with: catdog-edge export --weights {path}"
        )
    elif not status.st_size:
        wrong = "is empty; copy it again or export the model again"
    if wrong is not None:
        raise ModelError(f"{path} {wrong}")


def _not_found(path: Path) -> str:
    shown = plain(str(path))
    try:
        path.absolute()
    except FileNotFoundError:
        return f"{shown}: {FOLDER_GONE}; change to another one: cd"
    shipped = ", ".join(shipped_models()) or "none"
    return (
        f"there is no model {shown}: neither a file nor, given as a string, a shipped model "
        f"({shipped}); make one with: catdog-edge export"
    )


def load_session(
    file: ModelFile, options: onnxruntime.SessionOptions, *, explain: bool = True, **more: Any
) -> onnxruntime.InferenceSession:
    """Load a model with ONNX Runtime.

    Args:
        file: The model.
        options: Of the session.
        explain: Turn ONNX Runtime's errors into one line with a remedy.
        more: Further arguments of `InferenceSession`, for instance `providers`.

    Raises:
        LoadError: ONNX Runtime cannot load it.
    """
    import onnxruntime

    if file.path is None:
        # ONNX Runtime itself would look for weights in a second file in the current folder.
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, os.devnull)  # nothing lies below it
    try:
        return onnxruntime.InferenceSession(file.content, options, enable_fallback=0, **more)
    except Exception as error:
        if not explain or not diagnostics.is_runtime_error(error):
            raise
        reason, remedy = diagnostics.loading_error(error, from_bytes=file.path is None)
        raise LoadError(file.name, reason, remedy) from error


def read_spec(model: str | os.PathLike[str] | bytes | None) -> ModelSpec:
    """Read the spec of an ONNX file, without preparing it to run.

    Args:
        model: See `find_model`.

    Raises:
        ModelError: The file is missing, damaged, too new, or has no spec.
        MissingPackageError: onnxruntime is not installed.

    Example:
        >>> read_spec("fast").labels
        ('cat', 'dog')
    """
    onnxruntime = packages.runtime()
    file = find_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return spec_of(load_session(file, options, providers=["CPUExecutionProvider"]), file)


def spec_of(session: onnxruntime.InferenceSession, file: ModelFile) -> ModelSpec:
    """Read the spec from a loaded model and check that the graph is what it says.

    Raises:
        ModelError: There is no spec, it is damaged or newer, or the graph differs from it.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        import shlex

        typed = shlex.quote(str(file.path)) if file.path is not None else "FILE.onnx"
        raise ModelError(
            f"{file.name}: no spec of catdog-edge in it (metadata {METADATA_KEY!r}); labels, size "
            "and resize rule are not guessed: export it with `catdog-edge export`, or copy it "
            "again if it is one of ours; a spec written by hand is taken by `catdog-edge info "
            f"{typed} --spec FILE.json` and `catdog-edge verify REFERENCE {typed} --spec "
            "FILE.json`, and put into the file as docs/runtime.md shows"
        )
    spec = ModelSpec.from_json(text, source=file.name)
    differs = _mismatch(session.get_inputs(), session.get_outputs(), spec)
    if differs is not None:
        wanted, found = differs
        raise ModelError(
            f"{file.name}: its graph is not what its spec says: wanted {wanted}, found {found}; "
            "export the model again"
        )
    return spec


def _mismatch(inputs: list[Any], outputs: list[Any], spec: ModelSpec) -> tuple[str, str] | None:
    """What a spec wants of a graph and what the graph has, where that differs."""
    kind, shape = "tensor(uint8)", [spec.height, spec.width, 3]
    if spec.layout == "nchw-float":
        kind, shape = "tensor(float)", [3, spec.height, spec.width]
    found = "; ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    if [(one.name, one.type, one.shape[1:]) for one in inputs] != [(INPUT, kind, shape)]:
        return f"the input {INPUT} {kind} ['N', {str(shape)[1:]}", found
    if inputs[0].shape[0] == 0:
        return "a batch of 1 or more", found
    named = {one.name: one for one in outputs}
    found = "; ".join(f"{one.name} {one.type} {one.shape}" for one in outputs)
    knows = spec.rejection is not None and spec.rejection.score == "known"
    for name in (PROBABILITIES, KNOWN) if knows else (PROBABILITIES,):
        if name not in named:
            return f"an output {name}", found
    for name in (PROBABILITIES, KNOWN):
        if name in named and named[name].type != "tensor(float)":
            return f"{name} tensor(float)", found
    columns = named[PROBABILITIES].shape[1:]
    if len(columns) != 1 or (isinstance(columns[0], int) and columns[0] != len(spec.labels)):
        return f"the output {PROBABILITIES} ['N', {len(spec.labels)}]", found
    if KNOWN in named and len(named[KNOWN].shape) != 1 and named[KNOWN].shape[1:] != [1]:
        return f"the output {KNOWN} ['N'] or ['N', 1]", found
    return None
