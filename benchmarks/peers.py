"""Other runtimes on the same files, and the cost of a well-known wrapper: one interleaved run.

    python -m benchmarks.peers [--weights runs/NAME/best.pt] [--model FILE] [--threads N]

Knows how each peer is fed; the watch is `harness`. A peer takes a frame as a camera gives it
(`uint8 [H,W,3]` BGR) to probabilities, with the resize of the spec and the same number of
threads as all others. Every peer on our files answers one picture first and is compared with
`Classifier`, so that speed is never bought with another answer unseen. What is not installed
is left out by name; the extra `[peers]` brings all of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import environment, harness, report
from benchmarks.subjects import Row, TorchSubject
from catdog_edge.errors import CatdogError
from catdog_edge.files import write_text
from catdog_edge.modelfile import PROBABILITIES, read_spec
from catdog_edge.preprocess import Frame, preprocess
from catdog_edge.spec import ModelSpec
from catdog_edge.threads import Threads, choose_threads

Ask = Callable[[Frame], npt.NDArray[np.float32]]

LARGE = (1080, 1920)
"""Height and width of the large frame."""

ULTRALYTICS = "yolo11n-cls"
"""Their architecture that is exported for the cost of their wrapper; with fresh weights."""


@dataclass(frozen=True)
class Setting:
    """What every peer is made from.

    Attributes:
        weights: Our checkpoint.
        model: Our exported file.
        spec: Of the exported file.
        threads: For every peer.
        scratch: A folder for files that a peer converts.
    """

    weights: Path
    model: Path
    spec: ModelSpec
    threads: int
    scratch: Path


def classifier(setting: Setting, provider: str = "cpu") -> Ask:
    """Ours: `Classifier`, called with the frame."""
    from catdog_edge.classifier import Classifier

    pets = Classifier(setting.model, provider=provider, threads=setting.threads, reject=False)
    return lambda frame: np.array([pets(frame).probabilities], np.float32)


def classifier_openvino(setting: Setting) -> Ask:
    """Ours with the provider of the plugin `onnxruntime-ep-openvino`."""
    return classifier(setting, "openvino")


def bare_onnxruntime(setting: Setting) -> Ask:
    """The least code that runs the file with ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    session = onnxruntime.InferenceSession(
        str(setting.model), options, providers=["CPUExecutionProvider"]
    )
    name, steps = session.get_inputs()[0].name, setting.spec.resize

    def ask(frame: Frame) -> npt.NDArray[np.float32]:
        batch = _batch(preprocess(frame, steps), setting.spec)
        result: npt.NDArray[np.float32] = session.run([PROBABILITIES], {name: batch})[0]
        return result

    return ask


def openvino(setting: Setting, precision: str | None = None) -> Ask:
    """OpenVINO's own API on the file, tuned for latency."""
    import openvino as ov

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": setting.threads}
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    compiled = ov.Core().compile_model(str(setting.model), "CPU", config)
    request, port = compiled.create_infer_request(), compiled.output(PROBABILITIES)
    steps = setting.spec.resize

    def ask(frame: Frame) -> npt.NDArray[np.float32]:
        request.infer([_batch(preprocess(frame, steps), setting.spec)])
        return np.array(request.get_tensor(port).data, np.float32)

    return ask


def openvino_f32(setting: Setting) -> Ask:
    """The same, held to float32 (by default it computes in bfloat16 where that is fast)."""
    return openvino(setting, "f32")


def opencv_dnn(setting: Setting) -> Ask:
    """`cv2.dnn` on the float32 checkpoint, exported with the classical float input."""
    from catdog_edge.training.checkpoint import load_checkpoint
    from exporters.to_onnx import export_onnx

    network, spec = load_checkpoint(setting.weights)
    file = setting.scratch / "opencv.onnx"
    export_onnx(network, spec, file, layout="nchw-float", batch=1)
    net = cv2.dnn.readNetFromONNX(str(file))
    spec = spec.replace(layout="nchw-float")

    def ask(frame: Frame) -> npt.NDArray[np.float32]:
        if cv2.getNumThreads() != setting.threads:
            cv2.setNumThreads(setting.threads)
        net.setInput(_batch(preprocess(frame, spec.resize), spec))
        return np.asarray(net.forward(PROBABILITIES), np.float32)

    return ask


def ncnn(setting: Setting) -> Ask:
    """ncnn, on the float32 checkpoint as its converter pnnx makes it."""
    import ncnn as runtime
    import pnnx
    import torch

    from catdog_edge.training.checkpoint import load_checkpoint

    network, spec = load_checkpoint(setting.weights)
    with _quiet(), contextlib.chdir(setting.scratch):
        pnnx.export(network, "peer.pt", (torch.zeros(1, 3, *spec.size),), fp16=False)
    net = runtime.Net()
    net.opt.num_threads = setting.threads
    if net.load_param(str(setting.scratch / "peer.ncnn.param")) or net.load_model(
        str(setting.scratch / "peer.ncnn.bin")
    ):
        raise CatdogError("ncnn cannot load what pnnx converted")
    mean = list(spec.normalization.mean)
    factor = [1 / value for value in spec.normalization.std]

    def ask(frame: Frame) -> npt.NDArray[np.float32]:
        picture = preprocess(frame, spec.resize)
        height, width = spec.size
        mat = runtime.Mat.from_pixels(picture, runtime.Mat.PixelType.PIXEL_BGR2RGB, width, height)
        mat.substract_mean_normalize(mean, factor)
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        _, out = extractor.extract("out0")
        return _softmax(np.array(out, np.float32)[None] / spec.temperature)

    return ask


def pytorch(setting: Setting, variant: Any = "eager") -> Ask:
    """PyTorch on the checkpoint, as `bench` runs it."""
    row = Row("pytorch", "pytorch", str(setting.weights), setting.threads, variant=variant)
    subject = TorchSubject(row)
    return lambda frame: subject.probabilities([frame])


def pytorch_compiled(setting: Setting) -> Ask:
    """The same through `torch.compile`."""
    return pytorch(setting, "compile")


class Ultralytics:
    """Their own architecture at our input size: their `predict`, and the bare file beneath.

    Args:
        setting: Threads and size; our weights have no part in it.
    """

    def __init__(self, setting: Setting) -> None:
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
        os.environ.setdefault("YOLO_VERBOSE", "false")
        from ultralytics import YOLO

        self._setting = setting
        self._size = setting.spec.height
        with _quiet(), contextlib.chdir(setting.scratch):
            fresh = YOLO(f"{ULTRALYTICS}.yaml", task="classify")
            exported = fresh.export(format="onnx", imgsz=self._size, device="cpu", opset=17)
            self._file = Path(exported).absolute()

    def predict(self) -> Ask:
        """`YOLO(file).predict(frame)`, with their own preprocessing and results."""
        from ultralytics import YOLO

        with _quiet():
            model = YOLO(str(self._file), task="classify")

        def ask(frame: Frame) -> npt.NDArray[np.float32]:
            result = model.predict(frame, imgsz=self._size, device="cpu", verbose=False)[0]
            return np.asarray(result.probs.data.numpy(), np.float32)[None]

        return ask

    def bare(self) -> Ask:
        """Their file in a bare session, after our resize."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._setting.threads
        session = onnxruntime.InferenceSession(
            str(self._file), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name

        def ask(frame: Frame) -> npt.NDArray[np.float32]:
            picture = preprocess(frame, self._setting.spec.resize)
            rgb = picture[..., ::-1].transpose(2, 0, 1)[None]
            batch = np.ascontiguousarray(rgb, np.float32) / np.float32(255)
            return np.asarray(session.run(None, {name: batch})[0], np.float32)

        return ask


PEERS: dict[str, Callable[[Setting], Ask]] = {
    "Classifier": classifier,
    "Classifier, openvino": classifier_openvino,
    "onnxruntime": bare_onnxruntime,
    "openvino": openvino,
    "openvino, f32": openvino_f32,
    "cv2.dnn": opencv_dnn,
    "ncnn": ncnn,
    "pytorch": pytorch,
    "pytorch, compiled": pytorch_compiled,
}
"""The peers on our files; the first is what the others are compared with."""


@dataclass(frozen=True)
class Opened:
    """A peer that runs.

    Attributes:
        ask: Frame to probabilities.
        difference: Largest difference of a probability from `Classifier` on the picture;
            `None` for a peer with a network of its own.
        reference: The row that its ratio is to.
    """

    ask: Ask
    difference: float | None
    reference: str


def open_peers(setting: Setting, frame: Frame) -> tuple[dict[str, Opened], dict[str, str]]:
    """Open what is installed, and let each answer once.

    Args:
        setting: What to open.
        frame: `uint8 [H,W,3]` BGR.

    Returns:
        The peers by name; and by name, why one is left out.
    """
    found: dict[str, Opened] = {}
    left: dict[str, str] = {}
    first = next(iter(PEERS))
    expected: npt.NDArray[np.float32] | None = None
    for name, build in PEERS.items():
        try:
            ask = build(setting)
            answer = ask(frame)
        except Exception as error:  # a peer's own errors are of many kinds; each is told
            if name == first:
                raise
            left[name] = _reason(error)
            continue
        if expected is None:
            expected = answer
        found[name] = Opened(ask, float(np.abs(answer - expected).max()), first)
    theirs = f"{ULTRALYTICS}, bare session"
    try:
        other = Ultralytics(setting)
        for name, ask in ((theirs, other.bare()), (f"{ULTRALYTICS}, predict", other.predict())):
            ask(frame)
            found[name] = Opened(ask, None, theirs)
    except Exception as error:
        left[ULTRALYTICS] = _reason(error)
    return found, left


def compare(
    peers: dict[str, Opened], frame: Frame, seconds: float
) -> tuple[harness.Measurement, list[dict[str, Any]]]:
    """Time all peers on one frame, interleaved."""

    def call(ask: Ask) -> Callable[[], object]:
        return lambda: ask(frame)

    measured = harness.measure(
        {name: call(peer.ask) for name, peer in peers.items()},
        seconds,
        references={name: peer.reference for name, peer in peers.items()},
    )
    rows = [
        {
            "name": name,
            "difference": peer.difference,
            "ratio": {**asdict(measured.ratios[name]), "to": peer.reference},
            "latency": measured.summaries[name].to_dict(),
        }
        for name, peer in peers.items()
    ]
    return measured, rows


def large_frame(frame: Frame) -> Frame:
    """The same picture at 1080p, `uint8 [1080,1920,3]`."""
    return np.asarray(cv2.resize(frame, LARGE[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text."""
    heads = ["peer", "time / first's", "p50 ms", "p95", "p99", "mean", "max dp"]
    return heads, [
        [
            row["name"],
            "1" if row["ratio"]["to"] == row["name"] else report.ratio(row["ratio"]),
            *(report.milliseconds(row["latency"][f"{name}_ms"]) for name in ("p50", "p95", "p99")),
            report.milliseconds(row["latency"]["mean_ms"]),
            "-" if row["difference"] is None else f"{row['difference']:.1e}",
        ]
        for row in rows
    ]


def run(setting: Setting, picture: Frame, seconds: float) -> dict[str, Any]:
    """Open the peers, time them on a small and a large frame, and say how quiet it was."""
    card = environment.look(Threads(setting.threads, "--threads"))
    watch = environment.Watch()
    small = preprocess(picture, setting.spec.resize)
    peers, left = open_peers(setting, small)
    frames = []
    drifts: list[tuple[str, float]] = []
    for frame in (small, large_frame(picture)):
        measured, rows = compare(peers, frame, seconds)
        drifts += [(name, summary.drift) for name, summary in measured.summaries.items()]
        frames.append(
            {"height": frame.shape[0], "width": frame.shape[1], "rounds": measured.timing.rounds,
             "rows": rows}
        )  # fmt: skip
    quiet = watch.stop()
    return {
        "kind": "catdog-edge peers",
        "schema": 1,
        "model": {
            "file": setting.model.name,
            "architecture": setting.spec.architecture,
            "precision": setting.spec.precision,
            "height": setting.spec.height,
            "width": setting.spec.width,
        },
        "threads": setting.threads,
        "seconds": seconds,
        "environment": card.to_dict(),
        "quiet": quiet.to_dict(),
        "noise": environment.noise(card, quiet, drifts),
        "frames": frames,
        "left_out": left,
    }


def text(document: dict[str, Any]) -> str:
    """The tables for a terminal of 100 columns."""
    lines: list[str] = []
    if document["noise"]:
        lines += [*report.wrap("NOISY RUN: " + "; ".join(document["noise"]) + "."), ""]
    model = document["model"]
    for frame in document["frames"]:
        lines += report.wrap(
            f"{model['file']} ({model['architecture']}, {model['precision']}), a frame of "
            f"{frame['width']}x{frame['height']}, {document['threads']} threads, "
            f"{frame['rounds']} interleaved rounds"
        )
        lines += [*report.plain_table(*table(frame["rows"])), ""]
    for name, reason in document["left_out"].items():
        lines += report.wrap(f"left out: {name}: {reason}")
    lines += report.wrap(
        "max dp is the largest difference of a probability from Classifier on the same picture; "
        f"{ULTRALYTICS} is a network of its own, and compared with its own bare session."
    )
    return "\n".join(lines)


def _batch(picture: Frame, spec: ModelSpec) -> npt.NDArray[Any]:
    if spec.layout == "nhwc-uint8":
        return picture[None]
    rgb = picture[..., ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(rgb, np.float32) / np.float32(255)


def _softmax(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float32)


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; the extra [peers] brings it"
    words = str(error).strip() or type(error).__name__
    return words.splitlines()[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep converters from talking, also those that write past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with Path(os.devnull).open("wb") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)


@click.command()
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A checkpoint.  [default: newest run's best.pt]",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="An exported file of it.  [default: model.onnx beside it]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="For every peer.  [default: what the runtime takes]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="For each of the two frames.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="A picture.  [default: the first test picture of the run]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where peers.json goes.  [default: beside the weights]",
)
def main(
    weights: Path | None,
    model: Path | None,
    threads: int | None,
    seconds: float,
    picture: Path | None,
    out: Path | None,
) -> None:
    """Compare the runtimes that are installed on one model, interleaved."""
    from catdog_edge.pictures import read_picture
    from catdog_edge.training.runs import newest_run, run_of

    try:
        weights = weights or newest_run().weights
        model = model or weights.with_name("model.onnx")
        spec = read_spec(model)
        if picture is not None:
            frame = read_picture(picture)
        else:
            folder = run_of(weights)
            if folder is None:
                raise CatdogError(f"{weights} lies in no run folder; name a picture with --picture")
            dataset = folder.dataset()
            frame = dataset.decode(dataset.items_of("test")[0])
        with tempfile.TemporaryDirectory() as scratch:
            count = choose_threads(threads).count
            setting = Setting(weights, model, spec, count, Path(scratch))
            document = run(setting, frame, seconds)
        target = (out or weights.parent) / "peers.json"
        write_text(target, json.dumps(document, indent=1, allow_nan=False) + "\n")
    except CatdogError as error:
        click.echo(f"peers: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(text(document))
    click.echo(f"\n{target}")


if __name__ == "__main__":
    main()
