"""Other runtimes on the same files, and the cost of a well-known wrapper, in one interleaved run.

    python -m benchmarks.studies.peers [--weights runs/NAME/best.pt] [--model FILE] [--threads N]

From a frame to probabilities, with the resize of the spec and the same number of threads. Answers
are compared with `Classifier`'s. What is not installed is listed as left out; the extra `[peers]`
has all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.bench_rows import BenchRow, TorchRunner, Variant
from benchmarks.measure.environment import ActivityMonitor, Environment, noise_reasons
from benchmarks.measure.interleaved import Calls, Measurement, measure
from benchmarks.report import text as words
from benchmarks.report.tables import card
from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge.errors import CatdogError, first_line
from catdog_edge.images.preprocess import Image, preprocess, to_layout, to_nchw
from catdog_edge.images.read import read_picture
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.runtime.model_file import PROBABILITIES, read_spec
from catdog_edge.spec import ModelSpec
from catdog_edge.system.threads import choose_threads
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs.run_folder import find_checkpoint, run_of
from exporters.checks.comparison import Probabilities
from exporters.checks.predictors import open_session
from exporters.formats.torch_export import export_onnx
from exporters.output_folder import check_writable

Classify = Callable[[Image], Probabilities]
"""From a frame (`uint8 [H,W,3]` BGR, of any size) to `float32 [1,K]`."""

LARGE = (1080, 1920)  # height and width of the large frame
ULTRALYTICS = "yolo11n-cls"  # exported with fresh weights, for the cost of their wrapper


@dataclass(frozen=True)
class PeerConfig:
    """Inputs of every peer: our checkpoint and exported file, threads, a scratch folder."""

    weights: Path
    model: Path
    spec: ModelSpec
    threads: int
    scratch: Path

    def resized(self, frame: Image) -> Image:
        """Resize a frame as the spec says: `uint8 [1,H,W,3]`."""
        return preprocess(frame, self.spec.resize)[None]


def classifier(config: PeerConfig, provider: str = "cpu") -> Classify:
    """Return our `Classifier`, called with the frame."""
    pets = Classifier(config.model, provider=provider, threads=config.threads, reject=False)
    return lambda frame: np.array([pets(frame).probabilities], np.float32)


def bare_onnxruntime(config: PeerConfig) -> Classify:
    """Return a minimal loop that runs the file with ONNX Runtime's CPU provider."""
    session = open_session(config.model, config.threads)
    name, layout = session.get_inputs()[0].name, config.spec.layout

    def classify(frame: Image) -> Probabilities:
        batch = to_layout(config.resized(frame), layout)
        return np.asarray(session.run([PROBABILITIES], {name: batch})[0], np.float32)

    return classify


@functools.cache
def _openvino_core() -> Any:
    """Return the one `openvino.Core` of the process, never freed.

    When freed, each restores the signal stack (`sigaltstack`) that it found. Freed in the order of
    their creation, two leave a stack that is gone: the next Ctrl-C ends the process.
    """
    import openvino as ov

    return ov.Core()


def openvino(config: PeerConfig, precision: str | None = None) -> Classify:
    """Run the file with OpenVINO's own API, tuned for latency."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": config.threads}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = _openvino_core().compile_model(str(config.model), "CPU", settings)
    request, port = compiled.create_infer_request(), compiled.output(PROBABILITIES)

    def classify(frame: Image) -> Probabilities:
        request.infer([to_layout(config.resized(frame), config.spec.layout)])
        return np.array(request.get_tensor(port).data, np.float32)

    return classify


def opencv_dnn(config: PeerConfig) -> Classify:
    """Run the float32 checkpoint, exported with the classical float input, with `cv2.dnn`."""
    network, spec = load_checkpoint(config.weights)
    file = config.scratch / "opencv.onnx"
    export_onnx(network, spec, file, layout="nchw-float", batch=1)
    net = cv2.dnn.readNetFromONNX(str(file))

    def classify(frame: Image) -> Probabilities:
        if cv2.getNumThreads() != config.threads:
            cv2.setNumThreads(config.threads)
        net.setInput(to_nchw(config.resized(frame)))
        return np.asarray(net.forward(PROBABILITIES), np.float32)

    return classify


def ncnn(config: PeerConfig) -> Classify:
    """Run the float32 checkpoint with ncnn, as its converter pnnx converts it."""
    import ncnn as runtime
    import pnnx
    import torch

    network, spec = load_checkpoint(config.weights)
    with _quiet(), contextlib.chdir(config.scratch):
        pnnx.export(network, "peer.pt", (torch.zeros(1, 3, *spec.size),), fp16=False)
    net = runtime.Net()
    net.opt.num_threads = config.threads
    files = (str(config.scratch / f"peer.ncnn.{kind}") for kind in ("param", "bin"))
    if net.load_param(next(files)) or net.load_model(next(files)):
        raise CatdogError("ncnn cannot load what pnnx converted")
    mean = list(spec.normalization.mean)
    factor = [1 / value for value in spec.normalization.std]
    order = runtime.Mat.PixelType.PIXEL_BGR2RGB

    def classify(frame: Image) -> Probabilities:
        mat = runtime.Mat.from_pixels(config.resized(frame)[0], order, spec.width, spec.height)
        mat.substract_mean_normalize(mean, factor)
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        _, out = extractor.extract("out0")
        return softmax(np.array(out, np.float32)[None, : len(spec.labels)], spec.temperature)

    return classify


def pytorch(config: PeerConfig, variant: Variant = "eager") -> Classify:
    """Run the checkpoint with PyTorch, as `bench` does."""
    row = BenchRow("pytorch", "pytorch", str(config.weights), config.threads, variant=variant)
    runner = TorchRunner(row)
    return lambda frame: runner.probabilities([frame])


def ultralytics(config: PeerConfig) -> dict[str, Classify]:
    """Run their own architecture at our input size: the bare file, and their `predict` over it."""
    for name, value in (("OFFLINE", "true"), ("AUTOINSTALL", "false"), ("VERBOSE", "false")):
        os.environ.setdefault(f"YOLO_{name}", value)
    from ultralytics import YOLO

    file, size = config.scratch / "ultralytics.onnx", config.spec.height
    with _quiet(), contextlib.chdir(config.scratch):
        if not file.is_file():  # opened for the first time
            fresh = YOLO(f"{ULTRALYTICS}.yaml", task="classify")
            exported = fresh.export(format="onnx", imgsz=size, device="cpu", opset=17)
            Path(exported).absolute().replace(file)
        model = YOLO(str(file), task="classify")
    session = open_session(file, config.threads)
    name = session.get_inputs()[0].name

    def bare(frame: Image) -> Probabilities:
        return np.asarray(session.run(None, {name: to_nchw(config.resized(frame))})[0], np.float32)

    def predict(frame: Image) -> Probabilities:
        result = model.predict(frame, imgsz=size, device="cpu", verbose=False)[0]
        return np.asarray(result.probs.data.numpy(), np.float32)[None]

    return {f"{ULTRALYTICS}, bare session": bare, f"{ULTRALYTICS}, predict": predict}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence converters, also those that write to the file descriptors."""
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


PEERS: dict[str, Callable[[PeerConfig], Classify]] = {
    "Classifier": classifier,
    "Classifier, openvino": functools.partial(classifier, provider="openvino"),
    "onnxruntime": bare_onnxruntime,
    "openvino": openvino,
    "openvino, f32": functools.partial(openvino, precision="f32"),
    "cv2.dnn": opencv_dnn,
    "ncnn": ncnn,
    "pytorch": pytorch,
    "pytorch, compiled": functools.partial(pytorch, variant="compile"),
}
"""The peers on our files; the first is what the others are compared with. OpenVINO computes in
bfloat16 where that is fast unless it is held to float32."""

CONVERTED = {
    "cv2.dnn": ("opencv.onnx",),
    "ncnn": ("peer.ncnn.param", "peer.ncnn.bin"),
    ULTRALYTICS: ("ultralytics.onnx",),
}
"""What peers load that a converter has written into the scratch folder."""


@dataclass(frozen=True)
class Peer:
    """A runtime that works."""

    classify: Classify
    difference: float | None  # largest of a probability from `Classifier`'s; `None`: other network
    reference: str  # the row that its ratio is to
    size: int  # bytes of what it loads


def open_peers(config: PeerConfig, frame: Image) -> tuple[dict[str, Peer], dict[str, str]]:
    """Open what is installed; return the peers, and why one is left out, each by its name."""
    found: dict[str, Peer] = {}
    left: dict[str, str] = {}
    first = next(iter(PEERS))
    expected: Probabilities | None = None
    for name, build in PEERS.items():
        try:
            classify = build(config)
            answer = classify(frame)
            expected = answer if expected is None else expected
            difference = float(np.abs(answer - expected).max())
            found[name] = Peer(classify, difference, first, _size(config, name))
        except Exception as error:  # peers raise errors of many kinds
            if name == first:
                raise
            left[name] = _reason(error)
    try:
        theirs = ultralytics(config)
        for classify in theirs.values():
            classify(frame)
        bare = next(iter(theirs))
        size = _size(config, ULTRALYTICS)
        found |= {name: Peer(classify, None, bare, size) for name, classify in theirs.items()}
    except Exception as error:
        left[ULTRALYTICS] = _reason(error)
    return found, left


def _size(config: PeerConfig, name: str) -> int:
    ours = config.weights if name.startswith("pytorch") else config.model
    files = [config.scratch / file for file in CONVERTED.get(name, ())] or [ours]
    return sum(file.stat().st_size for file in files)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; the extra [peers] brings it"
    return first_line(error, 200)


def time_peers(
    config: PeerConfig, small: Image, peers: Mapping[str, Peer], frame: Image, seconds: float
) -> Measurement:
    """Time all peers on one frame, interleaved; each pass opens them again."""

    def calls(opened: Mapping[str, Peer]) -> Calls:
        return {name: functools.partial(peer.classify, frame) for name, peer in opened.items()}

    def reopen() -> Calls | None:
        opened, _ = open_peers(config, small)
        return calls(opened) if opened.keys() == peers.keys() else None

    references = {name: peer.reference for name, peer in peers.items()}
    return measure(calls(peers), seconds, references=references, reopen=reopen)


def run(
    config: PeerConfig, picture: Image, seconds: float, environment: Environment
) -> dict[str, Any]:
    """Open the peers and time them on a small and a large frame, `seconds` for each."""
    monitor = ActivityMonitor()
    small = config.resized(picture)[0]
    large = np.asarray(cv2.resize(picture, LARGE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    peers, left = open_peers(config, small)
    found = [time_peers(config, small, peers, frame, seconds) for frame in (small, large)]
    activity = monitor.stop()
    drifts = [drift for measured in found for drift in measured.drifts]
    unsettled = dict.fromkeys(name for measured in found for name in measured.unsettled)
    names = ("architecture", "precision", "height", "width")
    return {
        "kind": "catdog-edge peers",
        "schema": 1,
        "model": {"file": config.model.name} | {n: getattr(config.spec, n) for n in names},
        "threads": config.threads,
        "seconds": seconds,
        "environment": asdict(environment),
        "quiet": asdict(activity),
        "noise": noise_reasons(environment, activity, drifts, list(unsettled)),
        "frames": [
            {
                "height": frame.shape[0],
                "width": frame.shape[1],
                "rounds": measured.timing.rounds,
                "pass_starts": list(measured.timing.starts),
                "rows": [
                    {
                        "name": name,
                        "difference": peer.difference,
                        "bytes": peer.size,
                        "ratio": {**asdict(measured.ratios[name]), "to": peer.reference},
                        "latency": asdict(measured.summaries[name]),
                    }
                    for name, peer in peers.items()
                ],
            }
            for frame, measured in zip((small, large), found, strict=True)
        ],
        "left_out": left,
    }


def text(document: dict[str, Any]) -> str:
    """Format the document as tables of at most 100 columns."""
    lines: list[str] = []
    if document["noise"]:
        lines += [*words.wrap("NOISY RUN: " + "; ".join(document["noise"]) + "."), ""]
    model = document["model"]
    heads = ["peer", "time / first's", "p50 ms", "p95", "p99", "mean", "max dp", "MB"]
    for frame in document["frames"]:
        lines += words.wrap(
            f"{model['file']} ({model['architecture']}, {model['precision']}), a frame of "
            f"{frame['width']}x{frame['height']}, {document['threads']} threads, "
            f"{frame['rounds']} interleaved rounds in {len(frame['pass_starts'])} openings"
        )
        lines += [*words.plain_table(heads, [_cells(row) for row in frame["rows"]]), ""]
    notes = [f"left out: {name}: {reason}" for name, reason in document["left_out"].items()]
    notes += [f"{name}: {value}" for name, value in card(document)]
    notes.append(
        "max dp is the largest difference of a probability from Classifier on the same picture; "
        f"{ULTRALYTICS} is a network of its own, and compared with its own bare session."
    )
    return "\n".join(lines + [line for note in notes for line in words.wrap(note)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    times = (row["latency"][f"{name}_ms"] for name in ("p50", "p95", "p99", "mean"))
    return [
        row["name"],
        "1" if row["ratio"]["to"] == row["name"] else words.ratio(row["ratio"]),
        *map(words.milliseconds, times),
        words.MISSING if row["difference"] is None else f"{row['difference']:.1e}",
        f"{row['bytes'] / 1e6:.2f}",
    ]


@contextlib.contextmanager
def _only(processors: int) -> Iterator[None]:
    """Pin the process to some CPUs: not every peer has an option for its threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _check_same(config: PeerConfig) -> None:
    """Reject a file that cannot be an export of the checkpoint: its peers run another network."""
    _, other = load_checkpoint(config.weights)
    for name in ("architecture", "labels", "size"):
        theirs, ours = getattr(config.spec, name), getattr(other, name)
        if theirs != ours:
            raise CatdogError(
                f"{config.model} was not exported from {config.weights}: its {name} is {theirs}, "
                f"there {ours}; name the two that belong together"
            )


def _picture(named: Path | None, weights: Path) -> Image:
    if named is not None:
        try:
            return read_picture(named)
        except CatdogError as error:
            raise CatdogError(f"--picture {named}: {error}") from error
    of_run = run_of(weights)
    if of_run is None:
        raise CatdogError(f"{weights} lies in no run folder; name a picture with --picture")
    for dataset in of_run.datasets():
        for item in dataset.items_of("test"):
            return dataset.decode(item)
    raise CatdogError(f"{of_run.folder} has no test images; name a picture with --picture")


def report(options: argparse.Namespace) -> None:
    """Measure, write `peers.json` and print the tables."""
    weights = find_checkpoint(options.weights)
    folder = options.out or weights.parent
    check_writable(folder)
    model = options.model or weights.with_name("model.onnx")
    chosen = choose_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        config = PeerConfig(weights, model, read_spec(model), chosen.count, Path(scratch))
        _check_same(config)
        picture = _picture(options.picture, weights)
        environment = Environment.detect(chosen)
        with _only(chosen.count):
            document = run(config, picture, options.seconds, environment)
    keep(document, folder / "peers.json")
    print(f"{text(document)}\n\n{folder / 'peers.json'}")


main = StudyParser("peers", __doc__, report)
main.add_argument("--weights", type=Path, help="a checkpoint (the newest run's best.pt)")
main.add_argument("--model", type=Path, help="an exported file of it (model.onnx beside it)")
main.threads("of every peer")
main.seconds(30.0, "for each frame")
main.add_argument("--picture", type=Path, help="an image (the run's first test image)")
main.add_argument("--out", type=Path, help="folder of peers.json (beside the weights)")

if __name__ == "__main__":
    sys.exit(main())
