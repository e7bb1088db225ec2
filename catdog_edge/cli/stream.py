"""`catdog-edge stream`: connect cameras, events and outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from catdog_edge.cli import options as common
from catdog_edge.cli.options import COUNT_OR_0, NOT_NEGATIVE, POSITIVE, Number, output, path, size
from catdog_edge.errors import CameraError, CatdogError, escaped
from catdog_edge.system.console import note
from catdog_edge.system.signals import interrupts

if TYPE_CHECKING:
    from catdog_edge.camera.camera import Camera, Frame, State
    from catdog_edge.events.events import Events, View
    from catdog_edge.events.sinks import Snapshots, WriteFailures
    from catdog_edge.events.video import Recorder, Window
    from catdog_edge.spec import Box


def _report(text: str) -> None:
    note(f"catdog-edge: {escaped(text)}")  # the name of a file may hold control characters


class _Session:
    """One run of the command, until all sources end, a signal, or the time limit."""

    def __init__(self, options: Any, stop: threading.Event, resources: contextlib.ExitStack):
        self._options, self._stop, self._resources = options, stop, resources
        self._timed_out = False
        self._reasons: dict[str, str] = {}  # of each camera, the last one for not being live
        self._snapshots: Snapshots | None = None
        self._window: Window | None = None
        self._recorders: dict[str, Recorder] = {}
        sources = _sources(options)  # before the heavy imports: an invalid one is reported at once
        from catdog_edge.cli.event_lines import EventLines

        self._lines = EventLines(
            sys.stdout, stop, as_json=options.as_json, file=options.events, rotate=options.rotate
        )
        resources.callback(self._lines.close)
        self._cameras = self._open_cameras(sources)
        self._events = self._open_model()
        self._open_outputs()

    def run(self) -> None:
        """Process all frames; print a summary."""
        seconds = self._options.seconds
        if seconds is not None:
            timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._time_out)
            timer.daemon = True
            timer.start()
            self._resources.callback(timer.cancel)
        each = self._draw if self._recorders or self._window is not None else None
        try:
            for event in self._events.over(self._cameras, each=each, stop=self._stop):
                if self._snapshots is not None:
                    event = dataclasses.replace(event, snapshot=self._snapshots.write(event))
                self._lines.event(event)
        finally:
            silent = [
                f"{camera.described}: no frame within {seconds:g} s"
                + (f" ({reason})" if (reason := self._reasons.get(camera.name)) else "")
                for camera in self._cameras
                if self._timed_out and not self._events.tally(camera.name).frames
            ]
            for camera in self._cameras:
                camera.close()
            self._report_totals()
        if self._lines.unwritten is not None:
            raise self._lines.unwritten
        if silent:
            raise CameraError("; ".join(silent))

    def _time_out(self) -> None:
        self._timed_out = True
        self._stop.set()

    def _open_cameras(self, sources: list[tuple[str, str]]) -> list[Camera]:
        from catdog_edge.camera.camera import Camera

        options = self._options
        regions = _regions(options.roi, [name for name, _source in sources])
        names = ("realtime", "fps", "timeout", "retries", "keep_damaged")
        same = {name: getattr(options, name) for name in names}
        same |= {"start": _start_time(options.start), "on_state": self._on_state}
        cameras = []
        for name, source in sources:
            cameras.append(Camera(source, name, regions.get(name), **same))
            self._resources.callback(cameras[-1].close)
        return cameras

    def _on_state(self, camera: Camera, state: State, reason: str) -> None:
        if camera.is_live:
            self._reasons[camera.name] = reason or self._reasons.get(camera.name, "")
            self._lines.state(camera.name, state, reason)
        elif reason and (len(self._cameras) > 1 or reason == camera.note):
            _report(reason)  # the failure of the only source is the command's own error

    def _open_model(self) -> Events:
        from catdog_edge.events.events import Events, Rules
        from catdog_edge.runtime.classifier import SPIN, Classifier

        options = self._options
        times = options.smoothing, options.enter, options.leave, options.minimum, options.absence
        try:
            rules = Rules(*times)
        except ValueError as error:
            raise CatdogError(str(error)) from None
        # Between the frames of a camera, spinning burns the processor for nothing; a recording
        # that plays as fast as it can runs the model again at once. Measured in docs/runtime.md.
        paced = options.realtime or any(camera.is_live for camera in self._cameras)
        wanted = options.model, options.provider, options.threads, options.reject
        model = Classifier(*wanted, spin=False if paced else SPIN)
        taken = ", ".join(camera.described for camera in self._cameras)
        _report(f"{taken}; model {model.path} on {model.provider}, {model.threads} threads")
        if model.reject is None:
            what = "this model never answers 'neither', so that it sees one of its classes in every"
            _report(f"{what} frame; give --reject 0.95 or a model with a rejection")
        pictures = options.snapshots is not None
        return Events(model, rules, motion=options.motion, pictures=pictures, focus=options.focus)

    def _open_outputs(self) -> None:
        options = self._options
        if options.snapshots is not None:
            from catdog_edge.events.sinks import Snapshots

            self._snapshots = Snapshots(options.snapshots, options.keep)
        if options.record is not None:
            from catdog_edge.events.video import Recorder

            for camera in self._cameras:
                path = options.record
                if len(self._cameras) > 1:
                    path = path.with_name(f"{path.stem}-{camera.name}{path.suffix}")
                recorder = self._recorders[camera.name] = Recorder(path)
                self._resources.callback(recorder.close)
        if options.show:
            from catdog_edge.events.video import Window

            self._window = Window()
            self._resources.callback(self._window.close)

    def _draw(self, frame: Frame, view: View) -> None:
        from catdog_edge.events.video import draw_overlay

        image = draw_overlay(frame, view)
        if frame.source in self._recorders:
            self._recorders[frame.source].write(frame, image)
        if self._window is not None and not self._window.show(frame, image):
            self._stop.set()

    def _report_totals(self) -> None:
        for camera in self._cameras:
            counts, tally = camera.counts, self._events.tally(camera.name)
            kinds = ("replaced by newer ones", "too old", "damaged")
            dropped = zip(kinds, (counts.replaced, counts.stale, counts.damaged), strict=True)
            listed = ", ".join(f"{number:,} {what}" for what, number in dropped if number)
            listed = f" ({listed} dropped)" if listed else ""
            _report(
                f"{camera.name}: {tally.frames:,} frame{'s' * (tally.frames != 1)}{listed}, "
                f"{tally.classified:,} classified, "
                f"{tally.events:,} event{'s' * (tally.events != 1)}"
            )
        spent = os.times()  # of this process and of its children that have ended
        _report(f"processor time {sum(spent[:4]):.1f} s")
        for failures in self._failures():
            if failures.total:
                _report(f"{failures.total:,} {failures.what} could not be written")

    def _failures(self) -> list[WriteFailures]:
        outputs = [self._lines.file, self._snapshots, *self._recorders.values()]
        return [self._lines.failures, *(output.failures for output in outputs if output)]


def _sources(options: Any) -> list[tuple[str, str]]:
    """Parse name and source of each camera; none may be the events file."""
    from catdog_edge.camera.credentials import is_url
    from catdog_edge.camera.parse_source import parse_source, split_name

    named = [(name, _resolve_variable(source)) for name, source in map(split_name, options.source)]
    found = []
    for name, source in named:
        parsed = parse_source(source)
        found.append((name or parsed.name, source))
        if options.events is None:
            continue
        for file in parsed.files:
            with contextlib.suppress(OSError):
                if options.events.samefile(file):
                    what = f"--events {options.events}: that is a source"
                    raise CameraError(f"{what}; choose another file")
    for name in (split_name(text)[1] for text in options.source):
        # Other users may see the environment of a child.
        if name.startswith("$") and is_url(os.environ.get(name[1:], "")):
            del os.environ[name[1:]]
    return found


def _resolve_variable(source: str) -> str:
    """Resolve `$NAME`, which keeps a password out of the process list."""
    if not re.fullmatch(r"\$\w+", source):
        return source
    value = os.environ.get(source[1:])
    if not value:
        raise CameraError(f"--source {source}: there is no variable {source[1:]}; export it")
    return value


def _regions(texts: tuple[str, ...], names: list[str]) -> dict[str, Box]:
    """Parse `--roi [NAME=]x,y,w,h`; without a name it applies to every source."""
    found: dict[str, Box] = {}
    for text in texts:
        name, mark, numbers = text.rpartition("=")
        if mark and name not in names:
            there = ", ".join(names)
            raise CameraError(f"--roi {text}: no source is called {name}; there is {there}")
        try:
            x, y, width, height = (int(number) for number in numbers.split(","))
        except ValueError:
            raise CameraError(f"--roi {text}: give [NAME=]x,y,w,h in whole pixels") from None
        for target in [name] if mark else names:
            found[target] = (x, y, width, height)
    return found


def _start_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CatdogError(f"--start {text}: write it like 2026-11-22T15:04:05Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


source, events = map(common.group, ("Sources", "Events"))
seconds = functools.partial(events, type=NOT_NEGATIVE, metavar="SECONDS")
evidence = functools.partial(events, type=Number(0, 1, min_open=True))


@common.command(
    "stream",
    "catdog-edge stream --source door=rtsp://camera/live --json",
    "catdog-edge stream --source visit.mp4 --record annotated.mp4",
    "catdog-edge stream --source 0 --roi 0,200,640,280 --snapshots visits/",
)
@source(
    "--source",
    multiple=True,
    default=("0",),
    metavar="[NAME=]SOURCE",
    help="A camera index, an rtsp://, rtmp:// or http:// URL, a video, a folder or glob of "
    "images, or - for JPEGs on standard input. Repeatable.",
)
@source(
    "--roi",
    multiple=True,
    metavar="[NAME=]X,Y,W,H",
    help="Region of interest: use this part of the frames only. Repeatable.",
)
@source("--realtime", is_flag=True, help="Play recordings at their own speed.")
@source("--fps", type=POSITIVE, default=1.0, help="Frame rate of images and of snapshot URLs.")
@source(
    "--start",
    metavar="TIME",
    show_default="now",
    help="Start time of recordings, such as 2026-11-22T15:04:05Z.",
)
@source(
    "--timeout",
    type=POSITIVE,
    default=5.0,
    metavar="SECONDS",
    help="Reconnect when a camera is silent for this long.",
)
@source(
    "--retries",
    type=COUNT_OR_0,
    show_default="never",
    help="Give up on a camera after more than this many consecutive failures.",
)
@source("--keep-damaged", is_flag=True, help="Also use frames that the decoder reports damaged.")
@source("--seconds", type=POSITIVE, help="Stop after this many seconds.")
@common.model_option
@common.provider_option
@common.threads_option
@common.reject_option
@seconds("--smoothing", default=0.3, help="Time constant of the smoothed score.")
@evidence("--enter", default=0.6, help="Entry threshold of the smoothed score.")
@evidence("--leave", default=0.4, help="Exit threshold of the smoothed score.")
@seconds("--minimum", default=0.3, help="Shortest visit that is reported.")
@seconds("--absence", default=0.5, help="Shortest absence that ends a visit.")
@events(
    "--focus",
    type=click.Choice(["motion", "frame", "none"]),
    default="motion",
    help="Classify the whole frame and a square around the movement, for small objects (motion), "
    "the whole frame only (frame), or every whole frame, even without movement (none).",
)
@events(
    "--motion/--no-motion",
    default=True,
    help="Run the model only while something moves; --no-motion is --focus none.",
)
@output("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
@output("--events", type=path, metavar="FILE", help="Append events to this file as JSON lines.")
@output(
    "--rotate",
    type=size,
    default="10MB",
    metavar="SIZE",
    help="Start a new --events file at this size; five old ones are kept.",
)
@output("--snapshots", type=path, metavar="DIR", help="Save the best frame of each visit here.")
@output(
    "--keep",
    type=size,
    default="500MB",
    metavar="SIZE",
    help="Delete oldest --snapshots beyond this.",
)
@output("--record", type=path, metavar="FILE", help="Record annotated video (.mkv, .mp4, .avi).")
@output("--show", is_flag=True, help="Show annotated video in a window; q quits.")
def command(**options: Any) -> None:
    """Watch cameras or recordings; print an event when a class appears or leaves.

    The shipped models know cats and dogs; --model takes one of your own. Events go to standard
    output, camera states to standard error. Ctrl-C stops. See docs/stream.md for the format of
    events.
    """
    # `Camera.note` describes a damaged video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    stop = threading.Event()
    with interrupts(stop) as begin, contextlib.ExitStack() as resources:
        session = _Session(SimpleNamespace(**options), stop, resources)
        begin()
        session.run()
