"""Measure cameras and events: speed, delay, four cameras, and a soak test.

    python -m benchmarks.studies.camera_soak [--only file,first,delay,four,soak] [--minutes 30]

Needs Linux and GStreamer's packages (`camera_server` names them). A figure beyond its limit is exit
code 3.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.measure.environment import ActivityMonitor, Environment
from benchmarks.studies.camera_server import (
    BLOCK,
    RtspServer,
    encode_h264,
    photographs,
    read_stamp,
    stamp,
)
from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge import Camera, Classifier, Events
from catdog_edge.camera.camera import Frame
from catdog_edge.errors import CatdogError, GateError
from catdog_edge.events.events import View
from catdog_edge.runtime.classifier import SPIN
from exporters.checks.predictors import open_session
from exporters.checks.timing import Rounds, compare

# Least share of the bare loop's speed, least share of a camera's frames that arrive, greatest age
# of a frame, greatest growth of the resident memory and of other counts over a soak.
LIMITS = {"file": 0.95, "kept": 0.95, "oldest_s": 1.0, "growth_mb": 10.0, "change": 0.0}
PARTS = ("file", "first", "delay", "four", "soak")  # methods of `CameraBench`
FPS, NAMES = 15, ("north", "east", "south", "west")  # of the part `four`
FILE_FRAMES = 60  # of the part `file`
SETTLE = 15.0  # seconds before a fault at which a soak takes its sample, and before its end


class CameraBench:
    """The parts of the study; each returns its figures. `missed` is what is beyond its limit."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.missed: list[str] = []

    def model(self, live: bool) -> Classifier:
        """Open the model under measurement; its threads spin as in `catdog-edge stream`."""
        wanted = self.options.model, "cpu", self.options.threads, self.options.reject
        return Classifier(*wanted, spin=False if live else SPIN)

    def check(self, what: str, value: float, limit: str, *, least: bool = False) -> None:
        """Print whether a figure is within its limit."""
        wanted, sign = LIMITS[limit], "at least" if least else "at most"
        good = value >= wanted if least else value <= wanted
        print(f"  {what}: {value:.3f}, wanted {sign} {wanted:g}" + ("" if good else ": MISSED"))
        self.missed += [] if good else [what]

    def server(self, fps: int, length: int) -> RtspServer:
        """Serve a video of `length` seconds in which a pet comes or goes every two seconds."""
        frames = fps * length
        kinds = ["cat", "street", "dog", "street"] * 4
        pictures = [photographs(kind, 8)[number % 8] for number, kind in enumerate(kinds)]

        def drawn() -> Iterator[Any]:
            for number in range(frames):
                frame = pictures[number // (2 * fps) % len(pictures)].copy()
                stamp(frame, number)
                yield frame

        path = self.folder / f"{fps}-{length}.h264"
        if not path.exists():
            encode_h264(drawn(), path, fps)
        return RtspServer(path, fps, frames)

    def file(self) -> dict[str, Any]:
        """Compare the whole pipeline on a 1080p file with a hand-written loop."""
        path = self.folder / "1080p.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (1920, 1080))
        count = FILE_FRAMES
        wide = np.hstack([photographs(kind, 1)[0] for kind in ("street", "cat", "dog")])
        for number in range(count):
            part = wide[:, number * 8 : number * 8 + 640]
            writer.write(cv2.resize(part, (1920, 1080), interpolation=cv2.INTER_CUBIC))
        writer.release()
        model = self.model(live=False)
        assert model.path is not None
        session = open_session(model.path, model.threads)
        height, width = model.spec.size

        def bare() -> None:
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            while (read := capture.read())[0]:
                half = cv2.resize(read[1], (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
                whole = cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
                session.run(None, {"frames": whole[None]})
            capture.release()

        def ours(motion: bool) -> None:
            with Camera(path) as camera:
                for _event in Events(model, motion=motion).over(camera):
                    pass

        rows: dict[str, Callable[[], object]] = {
            "by hand": bare,
            "catdog-edge": lambda: ours(False),
            "with the motion gate": lambda: ours(True),
        }
        rounds = Rounds(block_seconds=0, min_calls=1, minimum=7, warmup_calls=1)
        timing = compare(rows, self.options.seconds, rounds)
        for name, row in timing.rows.items():
            print(f"file    {name:22} {count / row.p50:7.1f} frames per second")
        ratio = timing.ratio("by hand", to="catdog-edge")
        print(f"  frames per second against the loop by hand: {ratio}")
        self.check("share of the speed of the loop by hand", ratio.value, "file", least=True)
        return {"frames": count, **timing.to_dict(), "speed_ratio": ratio.value}

    def first(self) -> dict[str, Any]:
        """Time the first frame after a connect, with OpenCV alone and through `Camera`."""
        rows: dict[str, list[tuple[float, float]]] = {"OpenCV": [], "Camera": []}
        with self.server(15, 32) as server:

            def note(name: str, begun: float, image: Any) -> None:
                rows[name].append((time.monotonic() - begun, server.age(read_stamp(image))))

            for _ in range(5):
                begun = time.monotonic()
                capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
                note("OpenCV", begun, capture.read()[1])
                capture.release()
                begun = time.monotonic()
                with Camera(server.url) as camera:
                    frame = camera.read(timeout=30)
                    if frame is None:
                        raise CatdogError(f"no frame came: {camera.reason}")
                    note("Camera", begun, frame.image)
        document = {}
        for name, pairs in rows.items():
            after, age = np.median(pairs, axis=0).tolist()
            print(f"first   {name:8} first frame after {after:.2f} s, then {age:.2f} s old")
            document[name] = {"after_s": after, "age_s": age}
        return document

    def delay(self) -> dict[str, Any]:
        """Time from a frame's grab to the event it made certain, on live RTSP at 30 a second."""
        delays: list[float] = []
        ages: list[float] = []
        stop = threading.Event()
        with self.server(30, 32) as server:

            def each(frame: Frame, _view: View) -> None:
                ages.append(server.age(read_stamp(frame.image), frame.monotonic))

            with Camera(server.url, "live") as camera:
                threading.Timer(self.options.seconds, stop.set).start()
                for event in Events(self.model(live=True)).over(camera, each=each, stop=stop):
                    delays.append(time.time() - event.decided)
        if not delays:
            raise CatdogError("no event came: give a model that tells the pictures apart")
        document: dict[str, Any] = {"events": len(delays), "frames": len(ages)}
        for name, values in (("grab_to_event_ms", delays), ("sent_to_grab_ms", ages)):
            document[name] = found = in_ms(values)
            print(f"delay   {name:17} {found} ({len(values)})")
        self.check("age of the oldest frame in s", max(ages), "oldest_s")
        return document

    def four(self) -> dict[str, Any]:
        """Run four cameras of 640x360 at 15 frames per second and one classifier."""
        scenes = {"every frame": False, "with the motion gate": True}
        return {name: self._four(motion=motion) for name, motion in scenes.items()}

    def _four(self, *, motion: bool) -> dict[str, Any]:
        events = Events(self.model(live=True), motion=motion)
        watch = _Watch(self.options.seconds)
        with ExitStack() as stack:
            servers = [stack.enter_context(self.server(FPS, 32)) for _ in NAMES]
            region = (0, BLOCK, 640, 360 - BLOCK)  # without the number, which always changes
            opened = (Camera(one.url, name, region) for one, name in zip(servers, NAMES))
            cameras = [stack.enter_context(closing(camera)) for camera in opened]
            for _event in events.over(cameras, each=watch.note, stop=watch.stop):
                pass
            end = _clocks()
            private = [process.memory_full_info().uss / 1e6 for process in _workers()]
        wall, here, workers = (after - before for after, before in zip(end, watch.start))
        cost = {"receive": workers / wall / 4, "classify": here / wall / 4}
        kept = {name: watch.kept(name) for name in NAMES}
        classified = sum(events.tally(name).classified for name in NAMES)
        print(
            f"four    {'with' if motion else 'without'} motion gate: processor per camera "
            f"{100 * sum(cost.values()):.1f} % of a core ({100 * cost['receive']:.1f} % to receive "
            f"and decode, {100 * cost['classify']:.1f} % to classify), {classified} classified; "
            f"memory of its process {max(private):.0f} MB"
        )
        worst = min(share for shares in kept.values() for share in shares)
        self.check("frames that arrive, of the worst camera", worst, "kept", least=True)
        return {
            "seconds": wall,
            "frames": dict(watch.seen),
            "kept": {name: share for name, (share, _) in kept.items()},
            "kept_of_sent": {name: share for name, (_, share) in kept.items()},
            "classified": classified,
            "processor_per_camera": cost,
            "private_mb": private,
        }

    def soak(self) -> dict[str, Any]:
        """Run one camera with a fault every minute; compare resources at start and end."""
        events = Events(self.model(live=True))
        with self.server(15, 64) as server:
            soak = _Soak(server, self.options.minutes, self.options.every)
            with Camera(server.url, "soaked") as camera:
                thread = threading.Thread(target=soak.cause_faults)
                thread.start()
                happened = sum(1 for _ in events.over(camera, each=soak.note, stop=soak.stop))
                thread.join()
            counts = camera.counts
        first, last = soak.samples[0], soak.samples[-1]
        print(f"soak    {soak.faults} faults, {happened} events, {counts}")
        print(f"        first {first}\n        last  {last}")
        print(f"        frames again after {max(soak.back_after):.1f} s at most")
        growth = {what: last[what] - first[what] for what in last}
        self.check("growth of resident memory in MB", growth["here_mb"], "growth_mb")
        self.check("age of the oldest frame in s", soak.oldest, "oldest_s")
        for what in ("threads", "files", "processes"):
            self.check(f"change of {what}", abs(growth[what]), "change")
        known = counts.delivered + counts.replaced + counts.stale + counts.damaged
        self.check("frames lost without being counted", abs(counts.received - known), "change")
        return {
            "faults": soak.faults,
            "events": happened,
            "counts": vars(counts),
            "oldest_s": soak.oldest,
            "back_after_s": soak.back_after,
            "samples": soak.samples,
        }


@dataclass
class _Watch:
    """Counts the frames of four cameras for some seconds, from when all of them are connected."""

    seconds: float
    start: tuple[float, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    connected: set[str] = field(default_factory=set)
    first: dict[str, Frame] = field(default_factory=dict)
    last: dict[str, Frame] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def note(self, frame: Frame, _view: View) -> None:
        """Take a frame."""
        self.connected.add(frame.source)
        if len(self.connected) < len(NAMES):
            return
        if not self.start:
            self.start = _clocks()
            threading.Timer(self.seconds, self.stop.set).start()
        self.first.setdefault(frame.source, frame)
        self.last[frame.source] = frame
        self.seen[frame.source] += 1

    def kept(self, name: str) -> tuple[float, float]:
        """Return the share of a camera's frames, of those decoded and of those sent."""
        first, last, seen = self.first[name], self.last[name], self.seen[name]
        sent = round((last.monotonic - first.monotonic) * FPS) + 1
        return seen / (last.index - first.index + 1), seen / sent


class _Soak:
    """Injects faults into a camera periodically, and records how it recovers."""

    def __init__(self, server: RtspServer, minutes: float, every: float) -> None:
        self.stop = threading.Event()
        self.samples: list[dict[str, float]] = []
        self.oldest = 0.0
        self.back_after: list[float] = []
        self.faults = 0
        self._server, self._every = server, every
        self._end = time.monotonic() + 60 * minutes
        self._mended: float | None = None

    def note(self, frame: Frame, _view: View) -> None:
        """Take a frame."""
        self.oldest = max(self.oldest, self._server.age(read_stamp(frame.image)))
        if self._mended is not None:
            self.back_after.append(time.monotonic() - self._mended)
            self._mended = None

    def cause_faults(self) -> None:
        """Run until the time is up; then set `stop`."""
        server = self._server
        garbage, clean = (partial(server.send, what) for what in ("garbage", "clean"))
        kinds: list[tuple[str, Callable[[], object], float, Callable[[], object]]] = [
            ("killed for 2 s", server.kill, 2, server.start),
            ("frozen for 3 s", server.freeze, 3, server.thaw),
            ("frozen for 9 s", server.freeze, 9, server.thaw),
            ("garbage for 4 s", garbage, 4, clean),
            ("killed for 10 s", server.kill, 10, server.start),
            ("capture process killed", lambda: _workers()[0].kill(), 0, lambda: None),
        ]
        begun = time.monotonic()
        for number, (name, fault, length, mend) in enumerate(itertools.cycle(kinds), 1):
            self.stop.wait(max(0.0, begun + number * self._every - SETTLE - time.monotonic()))
            self.samples.append(self._sample(time.monotonic() - begun))
            if self._end - time.monotonic() < SETTLE:
                self.stop.wait(max(0.0, self._end - time.monotonic()))
                self.stop.set()
                return
            self._mended = None
            fault()
            time.sleep(length)
            mend()
            self._mended = time.monotonic()
            self.faults += 1
            print(f"soak    {self.samples[-1]} then {name}", flush=True)

    def _sample(self, at: float) -> dict[str, float]:
        workers = _workers()
        own = psutil.Process()
        return {
            "at_s": round(at),
            "here_mb": round(own.memory_info().rss / 1e6, 1),
            "worker_mb": round(sum(worker.memory_info().rss for worker in workers) / 1e6, 1),
            "threads": threading.active_count(),
            "files": own.num_fds(),
            "worker_files": sum(worker.num_fds() for worker in workers),
            "processes": len(workers),
        }


def _workers() -> list[psutil.Process]:
    """List the processes that hold cameras."""
    module = "catdog_edge.camera.capture_process"
    return [child for child in psutil.Process().children() if module in child.cmdline()]


def _clocks() -> tuple[float, float, float]:
    """Return the time, and the processor time of this process and of those that hold cameras."""
    spent = (sum(worker.cpu_times()[:2]) for worker in _workers())
    return time.monotonic(), time.process_time(), sum(spent)


def in_ms(seconds: list[float]) -> dict[str, float]:
    """Return the median, p95 and the longest of some durations, in milliseconds."""
    found = np.percentile(seconds, (50, 95, 100)) * 1e3
    return dict(zip(("p50", "p95", "max"), found.round(2).tolist(), strict=True))


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(
            f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}"
        )
    return parts


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    card, monitor = Environment.detect(), ActivityMonitor()
    print(f"{card.processor}, {card.processors_usable} processors, load {card.load_before}")
    document: dict[str, Any] = {"environment": asdict(card)}
    with tempfile.TemporaryDirectory() as folder:
        bench = CameraBench(options, Path(folder))
        print(f"model   {bench.model(live=True)!r}")
        for part in options.only:
            document[part] = getattr(bench, part)()
    quiet = monitor.stop()
    document["quiet"] = asdict(quiet)
    print(f"other processes took {quiet.others_busy:.2f} processors meanwhile")
    keep(document, options.json)
    if bench.missed:
        raise GateError(f"missed: {', '.join(bench.missed)}")


main = StudyParser("camera_soak", __doc__, run)
main.add_argument(
    "--only", type=_parts, default="file,first,delay,four", help=f"parts, of: {','.join(PARTS)}"
)
main.add_argument("--model", help="a file or a shipped model; default: the shipped one")
main.add_argument("--reject", type=float, help="answer `neither` below this score")
main.threads("of the model")
main.seconds(60.0, "for each part but the soak")
main.seconds(30.0, "for the soak", "--minutes")
main.seconds(60.0, "seconds between its faults", "--every")
main.json()

if __name__ == "__main__":
    sys.exit(main())
