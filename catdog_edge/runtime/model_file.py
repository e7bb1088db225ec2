"""Find model files, load them with ONNX Runtime, and read their specs.

Only onnxruntime reads the file; the `onnx` package is not needed.
"""

from __future__ import annotations

import os
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog_edge.errors import FOLDER_GONE, ModelError, escaped
from catdog_edge.runtime import onnxruntime_errors
from catdog_edge.runtime.foreign_files import foreign_model
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system import packages
from catdog_edge.system.version import __version__

if TYPE_CHECKING:
    import onnxruntime

DEFAULT = "fast"  # the default model
ZOO = Path(__file__).parents[1] / "zoo"

# Names of the graph's input and outputs; see `ModelSpec` for what they hold.
INPUT = "frames"
PROBABILITIES = "probabilities"
KNOWN = "known"
LOGITS = "logits"

Pickled = tuple[str | None, str | None, bytes | None]
"""A model on its way to another process: name of a shipped one, or path, or bytes."""


class LoadError(ModelError):
    """ONNX Runtime cannot load a file; `reason` and `remedy` do not contain its name."""

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class ModelFile:
    """A model to load: an absolute path or bytes.

    `shipped` is its name if it was requested as a model of the package, `called` its name in
    errors instead of its path.
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
        """Return a form of this model for another machine; see `from_pickle`."""
        if self.shipped is not None:
            return self.shipped, None, None
        return None, None if self.path is None else str(self.path), self.data

    def stamp(self) -> tuple[int, int, int] | None:
        """Return size, modification time and inode of the file; `None` for bytes."""
        if self.path is None:
            return None
        try:
            status = self.path.stat()
        except OSError as error:
            what = f"{self.name} cannot be read any more ({error.strerror})"
            raise ModelError(f"{what}; copy it back or make a new Classifier") from error
        return status.st_size, status.st_mtime_ns, status.st_ino

    def digest(self) -> str:
        """Return the SHA-256 of the bytes of the model, in hex."""
        import hashlib  # slow to load

        data = self.path.read_bytes() if self.path is not None else self.data or b""
        return hashlib.sha256(data).hexdigest()


def from_pickle(pickled: Pickled) -> str | bytes | None:
    """Return the argument of `find_model` for a pickled model, if its file exists here."""
    shipped, path, data = pickled
    if shipped is not None and shipped not in shipped_models():
        raise ModelError(
            f"this classifier was pickled with the name of its shipped model, {shipped}, which "
            f"catdog-edge {__version__} does not have here; install the version that it came from"
        )
    if path is not None and not os.path.exists(path):  # noqa: PTH110 - False for any bad path
        raise ModelError(
            f"this classifier was pickled with the path of its model, {path}, and no such file is "
            "here; copy it there, or make the classifier from its bytes, which travel along"
        )
    return shipped or path or data


def shipped_models() -> list[str]:
    """List the models in the package; a name with a dot is another form of a model."""
    return sorted(file.stem for file in ZOO.glob("*.onnx") if "." not in file.stem)


def find_model(model: str | os.PathLike[str] | bytes | None) -> ModelFile:
    """Resolve the argument `model` of `Classifier` to a file or bytes.

    Raises:
        ModelError: There is no such file, or it is certainly not an ONNX model.
        TypeError: `model` is neither a path, nor bytes, nor `None`.
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
        what = f"{escaped(str(path))}: onnxruntime opens no path that is not UTF-8"
        raise ModelError(f"{what}; rename the file or its folder, or give the bytes") from None
    return ModelFile(absolute)


def _check_file(path: Path) -> None:
    """Reject files that are unreadable or certainly not an ONNX model."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ModelError(_not_found(path)) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{path} is a folder; name the .onnx file in it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is a pipe or a device; read it and give the bytes")
    if foreign := foreign_model(path):
        raise ModelError(f"{path} is {foreign}")
    if path.suffix in (".pt", ".pth", ".ckpt"):
        make = f"catdog-edge export --weights {path}"
        raise ModelError(f"{path} is a checkpoint, not an ONNX file; make one with: {make}")
    if not status.st_size:
        raise ModelError(f"{path} is empty; copy it again or export the model again")


def _not_found(path: Path) -> str:
    shown = escaped(str(path))
    try:
        path.absolute()
    except FileNotFoundError:
        return f"{shown}: {FOLDER_GONE}; change to another one: cd"
    shipped = ", ".join(shipped_models()) or "none"
    return (
        f"there is no model {shown}: neither a file nor a shipped model "
        f"({shipped}); make one with: catdog-edge export"
    )


def load_session(
    file: ModelFile, options: onnxruntime.SessionOptions, *, explain: bool = True, **more: Any
) -> onnxruntime.InferenceSession:
    """Load a model with ONNX Runtime; `more` are further arguments of `InferenceSession`.

    Raises:
        LoadError: ONNX Runtime cannot load it. Without `explain`, its own error.
    """
    import onnxruntime

    if file.path is None:
        # ONNX Runtime itself would look for weights in a second file in the current folder.
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, os.devnull)  # the parent is a file
    try:
        return onnxruntime.InferenceSession(file.content, options, enable_fallback=0, **more)
    except Exception as error:
        if not explain or not onnxruntime_errors.is_runtime_error(error):
            raise
        reason, remedy = onnxruntime_errors.loading_error(error, from_bytes=file.path is None)
        raise LoadError(file.name, reason, remedy) from error


def read_spec(model: str | os.PathLike[str] | bytes | None) -> ModelSpec:
    """Read the spec of an ONNX file, without preparing it to run; see `find_model`.

    Raises:
        ModelError: The file is missing, damaged, too new, or has no spec.
        MissingPackageError: onnxruntime is not installed.

    Examples:
        >>> read_spec("fast").labels
        ('cat', 'dog')
    """
    onnxruntime = packages.import_complete("onnxruntime")
    file = find_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return spec_of(load_session(file, options, providers=["CPUExecutionProvider"]), file)


def spec_of(
    session: onnxruntime.InferenceSession, file: ModelFile, by_hand: ModelSpec | None = None
) -> ModelSpec:
    """Read the spec from a loaded model and check that the graph matches it.

    `by_hand` is the spec for a model without one. Its single input and output (or the output
    called `probabilities`) may have any name.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is not None:
        by_hand = None
        spec = ModelSpec.from_json(text, source=file.name)
        problem, remedy = "its graph is not what its spec says", "export the model again"
    elif by_hand is not None:
        spec = by_hand
        problem = "the spec given by hand does not fit it"
        remedy = "correct the spec, or name its own file"
    else:
        import shlex

        typed = shlex.quote(str(file.path)) if file.path is not None else "FILE.onnx"
        raise ModelError(
            f"{file.name}: no spec of catdog-edge in it (metadata {METADATA_KEY!r}), as in an ONNX "
            "file of another program; labels, size and resize rule are not guessed: make one of "
            f"ours of it with `catdog-edge import {typed} --labels A,B`, or try a spec written by "
            f"hand with `catdog-edge info {typed} --spec FILE.json`"
        )
    difference = _mismatch(session, spec, any_name=by_hand is not None)
    if difference:
        raise ModelError(f"{file.name}: {problem}: {difference}; {remedy}")
    return spec


def describe(value: Any) -> str:
    """Format name, type and shape of an entry of `session.get_inputs()` or `get_outputs()`."""
    shape = ", ".join(map(str, value.shape or ()))
    return f"{value.name} {value.type.removeprefix('tensor(').rstrip(')')} [{shape}]"


def _mismatch(session: Any, spec: ModelSpec, any_name: bool) -> str:
    """Describe where a graph differs from its spec; empty if it matches."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [value.name for value in outputs]
    size = [spec.height, spec.width]
    frame = ("uint8", [[*size, 3]]) if spec.layout == "nhwc-uint8" else ("float", [[3, *size]])
    wanted: list[tuple[str, str, list[list[int]]]] = [(INPUT, *frame)]
    wanted.append((PROBABILITIES, "float", [[len(spec.labels)]]))
    needs_known = spec.rejection is not None and spec.rejection.score == KNOWN and not any_name
    if KNOWN in names or needs_known:
        wanted.append((KNOWN, "float", [[], [1]]))
    for name, kind, shapes in wanted:
        found = inputs if name == INPUT else outputs
        any_here = any_name and (name == INPUT or PROBABILITIES not in names)
        values = [one for one in found if any_here or name == INPUT or one.name == name]
        fits = len(values) == 1 and (any_here or values[0].name == name)
        if not fits or values[0].type != f"tensor({kind})" or not _fits(values[0].shape, shapes):
            role = "input" if name == INPUT else "output"
            what = f"one {role}" if any_here else f"the {role} {name}"
            axes = " or ".join(f"[{', '.join(map(str, ['N', *shape]))}]" for shape in shapes)
            has = "; ".join(map(describe, found)) or "none"
            return f"expected {what} {kind} {axes} (N > 0), found {has}"
    return ""


def _fits(found: list[Any], shapes: list[list[int]]) -> bool:
    """Check whether a shape is a batch of one of `shapes`; a dynamic axis matches any size."""
    return any(
        len(found) == 1 + len(shape)
        and found[0] != 0
        and all(not isinstance(a, int) or a == b for a, b in zip(found[1:], shape, strict=True))
        for shape in shapes
    )
