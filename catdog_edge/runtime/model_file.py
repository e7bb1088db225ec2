"""Model files: finding one, opening it with ONNX Runtime, reading its spec, naming what is wrong.

Knows nothing of frames or of execution providers. Only onnxruntime reads the file; the
`onnx` package is not needed.
"""

from __future__ import annotations

import os
import re
import reprlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog_edge import __version__
from catdog_edge.errors import FOLDER_GONE, ModelError
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


NO_MEMORY = re.compile(
    "bad_alloc|[Ff]ailed to allocate|[Cc]annot allocate|out of memory|pthread_create failed"
)
"""In a message of ONNX Runtime, where memory is short."""


Travelled = tuple[str | None, str | None, bytes | None]
"""A model on its way to another process: name of a shipped one, or path, or bytes."""


class LoadError(ModelError):
    """ONNX Runtime cannot load a file.

    Attributes:
        reason: What is wrong, without the file's name.
        remedy: What to do about it.
    """

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class ModelFile:
    """A model to open, in one of two forms.

    Attributes:
        path: The file, absolute; `None` where bytes were given.
        data: The bytes of a model; `None` where there is a file.
        shipped: Its name, where it is one of the models that ship with the package and was
            asked for by it.
        called: What errors call it, in place of its path.
    """

    path: Path | None
    data: bytes | None = None
    shipped: str | None = None
    called: str | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        if self.called is not None:
            return self.called
        return str(self.path) if self.path is not None else "the model given as bytes"

    @property
    def content(self) -> str | bytes:
        """What ONNX Runtime opens."""
        return str(self.path) if self.path is not None else self.data or b""

    def travels(self) -> Travelled:
        """What names this model on another machine; see `arrived`."""
        if self.shipped is not None:
            return self.shipped, None, None
        return None, None if self.path is None else str(self.path), self.data

    def stamp(self) -> tuple[int, int, int] | None:
        """What changes with the file: size, time of change, inode; `None` for bytes.

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
        import hashlib

        data = self.path.read_bytes() if self.path is not None else self.data or b""
        return hashlib.sha256(data).hexdigest()


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
    shipped = shipped_models()
    if isinstance(model, str) and model in shipped:
        return ModelFile(ZOO / f"{model}.onnx", shipped=model)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            "a model is the path of an .onnx file, the bytes of one, the name of a shipped model "
            f"or None, got {type(model).__name__} {reprlib.repr(model)}".replace("\n", " ")
        )
    path = Path(os.fsdecode(model))
    try:
        absolute = path.absolute()
        str(absolute).encode()
    except FileNotFoundError:
        raise ModelError(f"{plain(str(path))}: {FOLDER_GONE}; change to another one: cd") from None
    except UnicodeEncodeError:
        raise ModelError(
            f"{plain(str(path))}: onnxruntime opens no path that is not UTF-8; rename the file or "
            "its folder, or give the bytes"
        ) from None
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # A path is a path: an object of that kind never means a shipped model.
        raise ModelError(_nowhere(path, shipped, named=isinstance(model, str))) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); check its name and permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{path} is a folder; name the .onnx file in it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is a pipe or a device; read it and give the bytes")
    if path.suffix in (".pt", ".pth", ".ckpt"):
        raise ModelError(
            f"{path} is a checkpoint, not an ONNX file; make one with: "
            f"catdog-edge export --weights {path}"
        )
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not status.st_size:
        raise ModelError(f"{path} is empty; copy it again or export the model again")
    return ModelFile(absolute)


def _nowhere(path: Path, shipped: Sequence[str], *, named: bool) -> str:
    listed = ", ".join(shipped) or "none"
    if named:
        return (
            f"there is no model {path}: neither a file nor a shipped model ({listed}); "
            "make one with: catdog-edge export"
        )
    if str(path) in shipped:
        return (
            f"there is no file {path}; the shipped model is named by the string {str(path)!r}, "
            "not by a path"
        )
    return (
        f"there is no file {path}; make one with: catdog-edge export, or name a shipped model "
        f"({listed}) by a string"
    )


def arrived(travelled: Travelled) -> str | bytes | None:
    """The argument for `find_model` that opens a model which came from another process.

    Raises:
        ModelError: It is not here.
    """
    shipped, path, data = travelled
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


def read_spec(model: str | os.PathLike[str] | bytes | None) -> ModelSpec:
    """Read the spec of an ONNX file, without preparing it to run.

    Args:
        model: See `find_model`.

    Raises:
        ModelError: The file is missing, damaged, too new, or has no spec.
        MissingPackageError: onnxruntime is not installed.
    """
    onnxruntime = packages.runtime()
    file = find_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    alone(options, file)
    session = opening(
        file,
        lambda: onnxruntime.InferenceSession(
            file.content, options, providers=["CPUExecutionProvider"]
        ),
    )
    return spec_of(session, file)


def opening(file: ModelFile, make: Callable[[], Any]) -> Any:
    """Make a session of a file; ONNX Runtime's complaint becomes one line with a remedy.

    Raises:
        LoadError: ONNX Runtime cannot load the file.
    """
    try:
        return make()
    except Exception as error:
        if not is_runtimes(error):
            raise
        raise LoadError(file.name, *_why(error, file)) from error


def alone(options: onnxruntime.SessionOptions, file: ModelFile) -> None:
    """Have bytes whose weights are in a second file refused, in whichever folder this is.

    ONNX Runtime itself takes what has the second file's name in the current folder.
    """
    if file.path is None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, os.devnull)  # nothing lies below it


def is_runtimes(error: Exception) -> bool:
    """Whether an error that a session raised is ONNX Runtime's: some are of Python's kinds."""
    own = type(error).__module__.startswith("onnxruntime")
    return own or type(error) in (RuntimeError, MemoryError)


def not_run(file: ModelFile, error: Exception, count: int, other: str) -> ModelError:
    """ONNX Runtime's complaint about a call as one line with a remedy.

    Args:
        file: The model.
        error: What the session raised.
        count: Frames that it was given; 1 where no other number would do.
        other: One more remedy, or an empty text.
    """
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        remedy = "give fewer frames at a time" if count > 1 else "take fewer threads"
        return ModelError(
            f"{file.name}: there is not enough memory to run it; free some, or {remedy}"
        )
    import onnxruntime

    at_once, or_less = "", ""
    if count > 1:
        at_once, or_less = f" on {count} frames", " or give one frame at a time"
    return ModelError(
        f"{file.name}: onnxruntime {onnxruntime.__version__} cannot run it{at_once} "
        f"({_gist(str(error))}); export the model again{or_less}{other}"
    )


def spec_of(session: onnxruntime.InferenceSession, file: ModelFile) -> ModelSpec:
    """Read the spec from an open session and check that the graph is what it says.

    Raises:
        ModelError: There is no spec, it is damaged or newer, or the graph differs from it.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        import shlex  # an end that goes well does without

        typed = shlex.quote(str(file.path)) if file.path is not None else "FILE.onnx"
        raise ModelError(
            f"{file.name}: no spec of catdog-edge in it (metadata {METADATA_KEY!r}); labels, size "
            "and resize rule are not guessed: export it with `catdog-edge export`, or copy it "
            "again if it is one of ours; a spec written by hand is taken by `catdog-edge info "
            f"{typed} --spec FILE.json` and `catdog-edge verify REFERENCE {typed} --spec "
            "FILE.json`, and put into the file as docs/runtime.md shows"
        )
    spec = ModelSpec.from_json(text, source=file.name)
    inputs = session.get_inputs()
    if spec.layout == "nhwc-uint8":
        kind, shape = "tensor(uint8)", [spec.height, spec.width, 3]
    else:
        kind, shape = "tensor(float)", [3, spec.height, spec.width]
    found = "; ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    if (
        len(inputs) != 1
        or inputs[0].name != INPUT
        or inputs[0].type != kind
        or len(inputs[0].shape) != 4
        or list(inputs[0].shape[1:]) != shape
    ):
        raise _differs(file, f"the input {INPUT} {kind} ['N', {str(shape)[1:]}", found)
    if inputs[0].shape[0] == 0:
        raise _differs(file, "a batch of 1 or more", found)
    outputs = {one.name: one for one in session.get_outputs()}
    found = "; ".join(f"{one.name} {one.shape}" for one in outputs.values())
    wanted = [PROBABILITIES]
    if spec.rejection is not None and spec.rejection.score == "known":
        wanted.append(KNOWN)
    for name in wanted:
        if name not in outputs:
            raise _differs(file, f"an output {name}", found)
    for name in (PROBABILITIES, KNOWN):
        if name in outputs and outputs[name].type != "tensor(float)":
            raise _differs(file, f"{name} tensor(float)", f"{name} {outputs[name].type}")
    shape = outputs[PROBABILITIES].shape
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != len(spec.labels)):
        raise _differs(file, f"the output {PROBABILITIES} ['N', {len(spec.labels)}]", found)
    if KNOWN in outputs and (len(outputs[KNOWN].shape) != 1 and outputs[KNOWN].shape[1:] != [1]):
        raise _differs(file, f"the output {KNOWN} ['N'] or ['N', 1]", found)
    return spec


def _differs(file: ModelFile, wanted: str, found: str) -> ModelError:
    return ModelError(
        f"{file.name}: its graph is not what its spec says: wanted {wanted}, found {found}; "
        "export the model again"
    )


def _why(error: Exception, file: ModelFile) -> tuple[str, str]:
    """ONNX Runtime's message about a file as a reason and a remedy."""
    import onnxruntime

    message = str(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(message):
        return (
            "there is not enough memory to load it and start its threads",
            "free some, or take fewer threads",
        )
    version = onnxruntime.__version__
    newer = f"upgrade onnxruntime (here: {version}), or export the model again with an older opset"
    opset = re.search(r"Opset (\d+) is under development.*?till opset (\d+)", message, re.DOTALL)
    if opset:
        return f"it needs opset {opset[1]}, onnxruntime {version} runs up to {opset[2]}", newer
    ir = re.search(r"IR version: (\d+), max supported IR version: (\d+)", message)
    if ir:
        return f"it has IR version {ir[1]}, onnxruntime {version} reads up to {ir[2]}", newer
    if "protobuf parsing failed" in message.lower() or "No graph was found" in message:
        return (
            "it is damaged, cut short, or not an ONNX file",
            "copy it again or export it again",
        )
    if "ORT model verification failed" in message:
        return (
            "it is damaged, cut short, or not in ORT format",
            "copy it again or export it again",
        )
    external = "External initializer" in message or "External data" in message
    if file.path is None and (external or "model_path must not be empty" in message):
        return "its weights are in a second file", "give its path instead of its bytes"
    outside = re.search(r'External data path does not exist: "(.*?)"', message)
    if outside:
        return (
            f"its weights are in a second file, {outside[1]}, which is not there",
            "copy it beside, under that name",
        )
    if external:
        return (
            "its weights are in a second file, which is cut short or another model's",
            "copy both files again",
        )
    implemented = re.search(r"Could not find an implementation for (\S+) node", message)
    if implemented:
        return f"onnxruntime {version} has no {implemented[1]} for what it asks", newer
    return f"onnxruntime {version} cannot load it ({_gist(message)})", "export the model again"


def _gist(message: str) -> str:
    """What a message says, without places in ONNX Runtime's source and its numbers of errors."""
    said = re.sub(r"\S*onnxruntime_src\S*.*?\) (?=\S)", "", message, flags=re.DOTALL)
    said = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(said.split()))
    said = re.sub(r"\S+\.(cc|h):\d+ (\S+ )?", "", said)
    said = re.sub(r"Non-zero status.* running (\w+) node\. .*Status Message: ", r"\1: ", said)
    return said[:200]
