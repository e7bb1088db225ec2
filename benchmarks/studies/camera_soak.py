"""What cameras and events cost, and how long they last: speed, delay, four cameras, a soak.

    python -m benchmarks.studies.camera_soak [--only file,first,delay,four,soak] [--minutes 30]
                                             [--json FILE]

Serves a video of its own over RTSP on loopback with the server of the tests, so it runs from
a checkout, on Linux, with GStreamer's packages (`tests/support/servers.py` names them). Every
served frame carries its number, which tells its age at the other end. Prints lines for people;
`--json` keeps the figures; a figure that misses what is asked for is exit code 3.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import environment
from benchmarks.studies.program import bare_session
from catdog_edge import Camera, Classifier, Events
from catdog_edge.camera.camera import Frame
from catdog_edge.errors import CatdogError
from catdog_edge.events.events import View
from catdog_edge.runtime.classifier import SPIN
from catdog_edge.system.files import write_text
from exporters.checks.timing import compare

TESTS = Path(__file__).resolve().parents[2] / "tests"

LIMITS = {
    "file": 0.95,
    "kept": 0.95,
    "oldest_s": 1.0,
    "growth_mb": 10.0,
}
"""What is asked for: share of the bare loop's speed, share of a camera's frames that arrive,
age of the oldest frame, growth of the resident memory over a soak."""

PARTS = ("file", "first", "delay", "four", "soak")


class Bench:
    """The parts, and what they need: the servers of the tests and a model."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        if not (TESTS / "support" / "servers.py").is_file():
            raise CatdogError(
                "benchmarks.studies.camera_soak needs tests/support/servers.py: "
                "run it from a checkout"
            )
        sys.path.insert(0, str(TESTS))
        from support import clips, servers  # type: ignore[import-not-found]

        self.clips, self.servers = clips, servers
        self.options = options
        self.folder = folder
        self.missed: list[str] = []

    def model(self, live: bool) -> Classifier:
        """The model under measurement, with threads that spin where `catdog-edge stream` lets them.

        Args:
            live: Whether frames come at their own pace.
        """
        asked = self.options.model, "cpu", self.options.threads, self.options.reject
        return Classifier(*asked, spin=False if live else SPIN)

    def judge(self, what: str, value: float, limit: str, *, least: bool = False) -> None:
        """Say whether a figure is what is asked for."""
        asked = LIMITS[limit]
        good = value >= asked if least else value <= asked
        sign = "at least" if least else "at most"
        print(f"  {what}: {value:.3f}, {sign} {asked:g} asked for" + ("" if good else ": MISSED"))
        if not good:
            self.missed.append(what)

    def served(self, fps: int, seconds: int, width: int = 640) -> tuple[Path, int]:
        """A video to serve, with a pet that comes or goes every two seconds, and its length."""
        frames = fps * seconds
        kinds = itertools.cycle(["cat", "street", "dog", "street"])
        pictures = [self.clips.photographs(kind, 8)[n % 8] for n, kind in zip(range(16), kinds)]

        def drawn() -> Iterator[Any]:
            for number in range(frames):
                picture = pictures[number // (2 * fps) % len(pictures)]
                frame = cv2.resize(picture, (width, width * 9 // 16))
                self.servers.stamp(frame, number)
                yield frame

        path = self.folder / f"{width}-{fps}-{seconds}.h264"
        return self.servers.encode_h264(drawn(), path, fps), frames

    def file(self) -> dict[str, Any]:
        """A 1080p file through the whole pipeline against a loop written by hand."""
        path = self.folder / "1080p.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (1920, 1080))
        count = 60
        wide = np.hstack([self.clips.photographs(k, 1)[0] for k in ("street", "cat", "dog")])
        for number in range(count):
            part = wide[:, number * 8 : number * 8 + 640]
            writer.write(cv2.resize(part, (1920, 1080), interpolation=cv2.INTER_CUBIC))
        writer.release()
        model = self.model(live=False)
        assert model.path is not None
        session = bare_session(model.path, model.threads)
        height, width = model.spec.size

        def bare() -> None:
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            while True:
                good, frame = capture.read()
                if not good:
                    break
                half = cv2.resize(frame, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
                whole = cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
                session.run(None, {"frames": whole[None]})
            capture.release()

        def ours(motion: bool) -> Callable[[], None]:
            def loop() -> None:
                with Camera(path) as camera:
                    for _event in Events(model, motion=motion).over(camera):
                        pass

            return loop

        rows = {"by hand": bare, "catdog-edge": ours(False), "with the motion gate": ours(True)}
        timing = compare(
            rows, self.options.seconds, block_seconds=0, min_calls=1, min_rounds=7, warmup_calls=1
        )
        for name, row in timing.rows.items():
            print(f"file    {name:22} {count / row.p50:7.1f} frames per second")
        ratio = timing.ratio("by hand", to="catdog-edge")
        print(f"  frames per second against the loop by hand: {ratio}")
        self.judge("share of the speed of the loop by hand", ratio.value, "file", least=True)
        return {"frames": count, **timing.to_dict(), "speed_ratio": ratio.value}

    def first(self) -> dict[str, Any]:
        """The first frame after a connect, with OpenCV as it is and through `Camera`."""
        fps = 15
        video, frames = self.served(fps, 32)
        rows: dict[str, list[tuple[float, float]]] = {"OpenCV": [], "Camera": []}
        with self.servers.RtspServer(video, fps, frames) as server:
            for _ in range(5):
                begun = time.monotonic()
                capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
                _good, image = capture.read()
                rows["OpenCV"].append(self._arrived(server, begun, image))
                capture.release()
                begun = time.monotonic()
                with Camera(server.url) as camera:
                    frame = camera.read(timeout=30)
                    if frame is None:
                        raise CatdogError(f"no frame came: {camera.reason}")
                    rows["Camera"].append(self._arrived(server, begun, frame.image))
        document = {}
        for name, pairs in rows.items():
            after, age = (float(np.median(values)) for values in zip(*pairs))
            print(f"first   {name:8} first frame after {after:.2f} s, then {age:.2f} s old")
            document[name] = {"after_s": after, "age_s": age}
        return document

    def _arrived(self, server: Any, begun: float, image: Any) -> tuple[float, float]:
        return time.monotonic() - begun, server.age(self.servers.read_stamp(image))

    def delay(self) -> dict[str, Any]:
        """From a frame's grab to the event that it made certain, on live RTSP at 30 a second."""
        fps = 30
        video, frames = self.served(fps, 32)
        delays, ages = [], []
        stop = threading.Event()
        with self.servers.RtspServer(video, fps, frames) as server:

            def each(frame: Frame, _view: View) -> None:
                ages.append(server.age(self.servers.read_stamp(frame.image), frame.monotonic))

            with Camera(server.url, "live") as camera:
                timer = threading.Timer(self.options.seconds, stop.set)
                timer.start()
                for event in Events(self.model(live=True)).over(camera, each=each, stop=stop):
                    delays.append(time.time() - event.decided)
                timer.cancel()
        if event_count := len(delays):
            grab = np.percentile(delays, (50, 95)) * 1e3
        else:
            raise CatdogError("no event came: give a model that tells the pictures apart")
        age = np.percentile(ages, (50, 95)) * 1e3
        print(f"delay   grab to event  p50 {grab[0]:.1f} ms, p95 {grab[1]:.1f} ms ({event_count})")
        print(f"        sent to grab   p50 {age[0]:.1f} ms, p95 {age[1]:.1f} ms ({len(ages)})")
        self.judge("age of the oldest frame in s", max(ages), "oldest_s")
        return {
            "events": event_count,
            "grab_to_event_ms": {"p50": grab[0], "p95": grab[1], "max": max(delays) * 1e3},
            "frames": len(ages),
            "sent_to_grab_ms": {"p50": age[0], "p95": age[1], "max": max(ages) * 1e3},
        }

    def four(self) -> dict[str, Any]:
        """Four cameras of 640x360 at 15 frames per second and one classifier."""
        video, frames = self.served(15, 32)
        return {
            "every frame asked": self._four(video, frames, motion=False),
            "with the motion gate": self._four(video, frames, motion=True),
        }

    def _four(self, video: Path, frames: int, *, motion: bool) -> dict[str, Any]:
        names = ["north", "east", "south", "west"]
        running = [self.servers.RtspServer(video, 15, frames) for _ in names]
        for server in running:
            server.start()
        # Below the row of the frame's number, which changes with every frame.
        region = (0, self.servers.BLOCK, 640, 360 - self.servers.BLOCK)
        cameras = [Camera(s.url, name, region) for s, name in zip(running, names, strict=True)]
        events = Events(self.model(live=True), motion=motion)
        stop = threading.Event()
        first: dict[str, Frame] = {}
        last: dict[str, Frame] = {}
        seen = dict.fromkeys(names, 0)
        mark: dict[str, float] = {}

        def each(frame: Frame, _view: View) -> None:
            last[frame.source] = frame
            if len(last) == len(names) and not mark:
                mark.update(self._processor_seconds())
                mark["wall"] = time.monotonic()
                threading.Timer(self.options.seconds, stop.set).start()
            if mark:
                first.setdefault(frame.source, frame)
                seen[frame.source] += 1

        asked = 0
        try:
            for _event in events.over(cameras, each=each, stop=stop):
                pass
            spent = self._processor_seconds()
            private = [_private(process) for process in self._readers()]
            wall = time.monotonic() - mark["wall"]
            asked = sum(events.tally(name).classified for name in names)
        finally:
            for camera in cameras:
                camera.close()
            for server in running:
                server.kill()
        # What the camera sent between the first and the last frame that were seen.
        kept = {n: seen[n] / (last[n].index - first[n].index + 1) for n in names}
        sent = {n: round((last[n].monotonic - first[n].monotonic) * 15) + 1 for n in names}
        kept_of_sent = {n: seen[n] / sent[n] for n in names}
        readers = (spent["children"] - mark["children"]) / wall / len(names)
        here = (spent["here"] - mark["here"]) / wall / len(names)
        print(
            f"four    {'with' if motion else 'without'} motion gate: processor per camera "
            f"{100 * (readers + here):.1f} % of a core ({100 * readers:.1f} % to receive and "
            f"decode, {100 * here:.1f} % to classify), {asked} answers; "
            f"memory of its process {max(private):.0f} MB"
        )
        worst = min(min(kept.values()), min(kept_of_sent.values()))
        self.judge("frames that arrive, of the worst camera", worst, "kept", least=True)
        return {
            "seconds": wall,
            "frames": seen,
            "kept": kept,
            "kept_of_sent": kept_of_sent,
            "answers": asked,
            "processor_per_camera": {"receive": readers, "classify": here},
            "private_mb": private,
        }

    def soak(self) -> dict[str, Any]:
        """One camera, a fault every minute; what is held at the start and at the end."""
        fps = 15
        video, frames = self.served(fps, 64)
        stop = threading.Event()
        samples: list[dict[str, Any]] = []
        oldest, back, faults = 0.0, [], 0
        counted = 0
        events = Events(self.model(live=True))
        with self.servers.RtspServer(video, fps, frames) as server:
            with Camera(server.url, "soaked") as camera:
                returned: list[float] = []

                def each(frame: Frame, _view: View) -> None:
                    nonlocal oldest, counted
                    number = self.servers.read_stamp(frame.image)
                    oldest = max(oldest, server.age(number))
                    counted += 1 + frame.dropped
                    if returned:
                        back.append(time.monotonic() - returned.pop())

                def misfortune() -> None:
                    nonlocal faults
                    kinds = itertools.cycle(self._faults(server))
                    begun = time.monotonic()
                    for number in itertools.count(1):
                        wait = begun + number * self.options.every - 15 - time.monotonic()
                        if stop.wait(max(0.0, wait)):
                            return
                        samples.append(self._held(server, time.monotonic() - begun))
                        left = begun + 60 * self.options.minutes - time.monotonic()
                        if left < 15:
                            stop.wait(max(0.0, left))
                            stop.set()
                            return
                        name, fault = next(kinds)
                        returned.clear()
                        back_at = fault()
                        returned.append(back_at)
                        faults += 1
                        print(f"soak    {samples[-1]} then {name}", flush=True)

                thread = threading.Thread(target=misfortune)
                thread.start()
                happened = sum(1 for _ in events.over(camera, each=each, stop=stop))
                thread.join()
            counts = camera.counts
        lost = counts.replaced + counts.stale + counts.damaged
        growth = samples[-1]["here_mb"] - samples[0]["here_mb"]
        print(f"soak    {faults} faults, {happened} events, {counts}")
        print(f"        first {samples[0]}")
        print(f"        last  {samples[-1]}")
        print(f"        frames again after {max(back):.1f} s at most")
        self.judge("growth of resident memory in MB", growth, "growth_mb")
        self.judge("age of the oldest frame in s", oldest, "oldest_s")
        for what in ("threads", "files", "processes"):
            if samples[-1][what] != samples[0][what]:
                self.missed.append(f"{what} at the end")
                print(f"  {what}: {samples[0][what]} became {samples[-1][what]}: MISSED")
        if counts.received != counts.delivered + lost:
            self.missed.append("frames lost without being counted")
            print("  frames were lost without being counted: MISSED")
        return {
            "faults": faults,
            "events": happened,
            "counts": vars(counts),
            "numbered": counted,
            "oldest_s": oldest,
            "back_after_s": back,
            "samples": samples,
        }

    def _faults(self, server: Any) -> list[tuple[str, Callable[[], float]]]:
        """Ways to hurt a camera; each returns when the server was itself again."""

        def killed(seconds: float) -> Callable[[], float]:
            def fault() -> float:
                server.kill()
                time.sleep(seconds)
                server.start()
                return time.monotonic()

            return fault

        def frozen(seconds: float) -> Callable[[], float]:
            def fault() -> float:
                server.freeze()
                time.sleep(seconds)
                server.thaw()
                return time.monotonic()

            return fault

        def garbage() -> float:
            server.say("garbage")
            time.sleep(4)
            server.say("clean")
            return time.monotonic()

        def reader_killed() -> float:
            for process in self._readers(server):
                os.kill(process, 9)
            return time.monotonic()

        return [
            ("killed for 2 s", killed(2)),
            ("frozen for 3 s", frozen(3)),
            ("frozen for 9 s", frozen(9)),
            ("garbage for 4 s", garbage),
            ("killed for 10 s", killed(10)),
            ("reader killed", reader_killed),
        ]

    def _readers(self, server: Any = None) -> list[int]:
        own = server.process.pid if server is not None and server.process else None
        found = []
        for process in self.servers.children():
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            if process != own and b"catdog_edge.camera.capture_worker" in command:
                found.append(process)
        return found

    def _held(self, server: Any, at: float) -> dict[str, Any]:
        readers = self._readers(server)
        return {
            "at_s": round(at),
            "here_mb": round(_resident("self"), 1),
            "reader_mb": round(sum(_resident(str(process)) for process in readers), 1),
            "threads": threading.active_count(),
            "files": self.servers.open_files(),
            "reader_files": sum(len(list(Path(f"/proc/{p}/fd").iterdir())) for p in readers),
            "processes": len(readers),
        }

    def _processor_seconds(self) -> dict[str, float]:
        ticks = 0
        for process in self._readers():
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return {"children": ticks / os.sysconf("SC_CLK_TCK"), "here": time.process_time()}


def _resident(process: str) -> float:
    """Resident memory in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _private(process: int) -> float:
    """Memory of a process that it shares with none, in megabytes."""
    kilobytes = 0
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.camera_soak", description=__doc__
    )
    parser.add_argument(
        "--only", default="file,first,delay,four", help="parts, of: " + ",".join(PARTS)
    )
    parser.add_argument("--model", help="a file or a shipped model; default: the shipped one")
    parser.add_argument("--reject", type=float, help="answer `neither` below this score")
    parser.add_argument("--threads", type=int, help="of the model")
    parser.add_argument("--seconds", type=float, default=60, help="for each part but the soak")
    parser.add_argument("--minutes", type=float, default=30, help="for the soak")
    parser.add_argument("--every", type=float, default=60, help="seconds between its faults")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    options = parser.parse_args(arguments)
    options.parts = options.only.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for; returns the exit code."""
    options = _parse(arguments)
    card = environment.Environment.detect()
    print(f"{card.processor}, {card.processors_usable} processors, load {card.load_before}")
    document: dict[str, Any] = {"environment": card.to_dict()}
    watch = environment.ActivityMonitor()
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(options, Path(folder))
            print(f"model   {bench.model(live=True)!r}")
            for part in options.parts:
                document[part] = getattr(bench, part)()
    except CatdogError as error:
        print(f"benchmarks.studies.camera_soak: {error}", file=sys.stderr)
        return error.exit_code
    quiet = watch.stop()
    document["quiet"] = quiet.to_dict()
    if quiet.others_busy is not None:
        print(f"other processes took {quiet.others_busy:.2f} processors meanwhile")
    if options.json is not None:
        write_text(options.json, json.dumps(document, indent=1) + "\n")
    if bench.missed:
        print(f"missed: {', '.join(bench.missed)}", file=sys.stderr)
    return 3 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
