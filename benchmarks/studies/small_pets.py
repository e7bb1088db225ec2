"""Accuracy of a search: pets that fill the image, and pets of a quarter of a frame's width.

    python -m benchmarks.studies.small_pets accurate --data wild-pets.zip --other wild-other.zip

Of the test split of both, each picture as it is and, a quarter as wide, at a random place of one of
`--behind`, a folder of `--other`, enlarged to 1280x720: the share that is answered, and of those
the share with the right class, from `Classifier.__call__` and from `search`. `--videos` prints in
how many videos the events are right, with `stream --focus motion` and `frame`, and `--seconds` what
a frame costs with them. The tables are in docs/camera-loop.md and docs/stream.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal

import cv2
import numpy as np

from benchmarks.report.text import markdown_table
from benchmarks.studies import command_line
from benchmarks.studies.camera_server import fill_frame
from catdog_edge import Classifier, Events
from catdog_edge.camera.camera import Frame
from catdog_edge.errors import DataError
from catdog_edge.events.events import Event
from catdog_edge.images.preprocess import Image
from catdog_edge.spec import NEITHER
from catdog_edge.training.data.open_dataset import open_dataset, open_negative_images
from exporters.checks.timing import compare

SIZE = (1280, 720)  # width and height of a made frame
SHARE = 0.25  # of the frame's width that the picture takes
FPS = 10.0  # frames per second of the videos
NEAR = 1.0  # seconds that a right event may be away from the truth

Focus = Literal["motion", "frame"]
FOCUS: tuple[Focus, Focus] = ("motion", "frame")

Picture = tuple[str, str, Image]  # its kind, its class or `neither`, and its pixels
Moment = tuple[str, str, float]  # `enter` or `exit`, of which class, and when
Video = tuple[Callable[[float], Image], float, list[Moment]]  # the scene at a time, seconds, events


def scene(picture: Image) -> Image:
    """Enlarge a picture to a frame."""
    return np.asarray(fill_frame(picture, *SIZE, cv2.INTER_CUBIC), np.uint8)


def small(picture: Image) -> Image:
    """Resize a picture to `SHARE` of a frame's width, or to the height where it is too tall."""
    factor = min(SHARE * SIZE[0] / picture.shape[1], SIZE[1] / picture.shape[0])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    made = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation)
    return np.asarray(made, np.uint8)


def paste(frame: Image, picture: Image, left: int, top: int) -> Image:
    """Copy a frame with a picture in it; what lies outside is cut off."""
    made = frame.copy()
    height, width = frame.shape[:2]
    box = slice(max(0, top), top + len(picture)), slice(max(0, left), left + picture.shape[1])
    part = picture[max(0, -top) : height - top, max(0, -left) : width - left]
    if part.size:
        made[box] = part
    return made


def pictures(data: str, other: str) -> list[Picture]:
    """Return the test split of both data sets, the other's grouped by their first folder."""
    pets, rest = open_dataset(data), open_negative_images(other)
    return [
        ("pets", pets.labels[item.label], pets.decode(item)) for item in pets.items_of("test")
    ] + [(item.file.split("/")[0], NEITHER, rest.decode(item)) for item in rest.items_of("test")]


def frames(found: list[Picture], behind: str) -> Iterator[Picture]:
    """Place each image in a frame."""
    places = [image for kind, _truth, image in found if kind == behind]
    if not places:
        raise DataError(f"--behind {behind}: there is no such folder in the test split of --other")
    random = np.random.default_rng(7)
    for kind, truth, image in found:
        if kind == behind:
            yield kind, truth, scene(image)
            continue
        behind_it, part = scene(places[random.integers(len(places))]), small(image)
        room = (SIZE[0] - part.shape[1], SIZE[1] - part.shape[0])
        left, top = (int(random.integers(most + 1)) for most in room)
        yield kind, truth, paste(behind_it, part, left, top)


def rows(name: str, found: list[Picture], behind: str) -> list[list[str]]:
    """Return one row per kind of image and frame."""
    counts: dict[tuple[str, str], np.ndarray] = {}
    with Classifier(name, "cpu") as pets:
        for made, source in (("as it is", iter(found)), ("in a frame", frames(found, behind))):
            for kind, truth, image in source:
                answers = pets(image).label, pets.search(image).label
                one = [1, *(label != NEITHER for label in answers)]
                one += [label == truth != NEITHER for label in answers]
                counts[kind, made] = counts.get((kind, made), 0) + np.array(one)
    table = []
    for (kind, made), (total, *answered, right, right_search) in counts.items():
        shares = [f"{100 * count / total:.1f}" for count in answered]
        pet = kind == "pets"
        for count, of in zip((right, right_search), answered, strict=True):
            shares.append(f"{100 * count / max(1, of):.1f}" if pet else "")
        table.append([name, f"{kind} {made}", str(total), *shares])
    return table


def filmed(at: Callable[[float], Image], seconds: float) -> Iterator[Frame]:
    """Yield frames, with camera noise, of a scene that depends on the time."""
    random = np.random.default_rng(5)
    for number in range(round(seconds * FPS)):
        image = at(number / FPS) + random.normal(0, 3, (*SIZE[::-1], 1)).astype(np.float32)
        yield Frame(image.clip(0, 255).astype(np.uint8), number, number / FPS, number / FPS, 0, "")


def videos(cat: Image, street: Image, dog: Image, room: Image) -> dict[str, Video]:
    """Make three videos of four images: cuts, pans, and small pets that come and go in a room.

    The moments of a pan and of a small pet are those when half of it is visible.
    """
    full = [scene(picture) for picture in (cat, street, dog, room)]
    wide = np.hstack([*full, full[-1]])
    small_ones = small(cat), small(dog)

    def cuts(time: float) -> Image:
        return full[int(time / 4)]

    def pans(time: float) -> Image:
        number, within = divmod(time, 4.0)
        place = number + (max(0.0, (within - 3.25) / 1.5) if number < 3 else 0.0)
        place -= max(0.0, (0.75 - within) / 1.5) if number > 0 else 0.0
        return wide[:, round(place * SIZE[0]) :][:, : SIZE[0]]

    def visits(time: float) -> Image:
        visit, within = divmod(time, 10.0)
        pet = small_ones[int(visit)]
        # In from the left within three seconds, three at rest, and back within three.
        way = float(np.interp(within, (1, 4, 7, 10), (0, 1, 1, 0)))
        left = round(way * (SIZE[0] // 2 + pet.shape[1] // 2)) - pet.shape[1]
        return paste(full[3], pet, left, (SIZE[1] - pet.shape[0]) * 2 // 3)

    half = 1 + 3 * SHARE / (1 + SHARE)

    def moments(stay: float, first: float = 0, last: float = 4) -> list[Moment]:
        ends = (("enter", first), ("exit", last))
        return [(e, pet, n * stay + at) for n, pet in enumerate(("cat", "dog")) for e, at in ends]

    four, small_truth = moments(8), moments(10, half, 11 - half)
    return {
        "cuts": (cuts, 16, four),
        "pans": (pans, 16, four),
        "a quarter wide": (visits, 20, small_truth),
    }


def are_right(found: list[Event], truth: list[Moment]) -> bool:
    """Check whether the events are the true ones, each within `NEAR` seconds."""
    return len(found) == len(truth) and all(
        (event.event, event.label) == true[:2] and abs(event.wall - true[2]) <= NEAR
        for event, true in zip(found, truth, strict=True)
    )


def watch(pets: Classifier, video: Video, focus: Focus) -> list[Event]:
    """Return the events of a video."""
    at, seconds, _truth = video
    events = Events(pets, focus=focus)
    found = [event for frame in filmed(at, seconds) for event in events.feed(frame)]
    return found + events.finish("", "ended")


def video_rows(name: str, found: list[Picture], options: argparse.Namespace) -> list[list[str]]:
    """Return one row per kind of video: in how many the events are right."""
    kinds = (("cat", "pets"), (NEITHER, options.behind), ("dog", "pets"), (NEITHER, options.behind))
    random = np.random.default_rng(3)
    sets = []
    for truth, kind in kinds:
        able = [image for of, label, image in found if (of, label) == (kind, truth)]
        chosen = random.choice(len(able), options.videos, replace=options.videos > len(able))
        sets.append([able[index] for index in chosen])
    right: dict[str, list[int]] = {}
    with Classifier(name, "cpu") as pets:
        for four in zip(*sets, strict=True):
            for kind, video in videos(*four).items():
                counts = right.setdefault(kind, [0, 0])
                for column, focus in enumerate(FOCUS):
                    counts[column] += are_right(watch(pets, video, focus), video[2])
    return [[name, kind, str(options.videos), *map(str, counts)] for kind, counts in right.items()]


def cost(name: str, seconds: float) -> list[str]:
    """Measure the processor time of `Events.feed` for a moving frame, with and without a focus.

    Interleaved, with one thread: other work of the machine does not count.
    """
    random = np.random.default_rng(1)
    room = scene(random.integers(0, 256, (9, 16, 3), np.uint8))
    thing = random.integers(0, 256, (200, 200, 3), np.uint8)
    with Classifier(name, "cpu", threads=1, spin=False) as pets:
        calls: dict[str, Callable[[], object]] = {}
        for focus in FOCUS[::-1]:
            frames = filmed(lambda t: paste(room, thing, round(200 * t) % 1000, 300), 8)
            endless = itertools.cycle(list(frames))
            moving = (dataclasses.replace(f, monotonic=n / FPS) for n, f in enumerate(endless))
            calls[focus] = map(Events(pets, focus=focus, pictures=False).feed, moving).__next__
        timing = compare(calls, seconds, clock=time.process_time)
    p50 = [1e3 * timing.rows[focus].p50 for focus in FOCUS]
    return [name, *(f"{value:.2f}" for value in p50), f"{p50[0] / p50[1]:.2f}"]


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    models, found = options.models, [] if options.seconds else pictures(options.data, options.other)
    if options.seconds:
        heads = ["model", "--focus motion, ms", "--focus frame, ms", "ratio"]
        table = [cost(name, options.seconds) for name in models]
    elif options.videos:
        heads = ["model", "video", "number", "right: --focus motion", "--focus frame"]
        table = [row for name in models for row in video_rows(name, found, options)]
    else:
        heads = ["model", "picture", "number", "answered: frame, %", "search, %"]
        heads += ["right of these: frame, %", "search, %"]
        table = [row for name in models for row in rows(name, found, options.behind)]
    print(markdown_table(heads, table))


main = command_line.StudyParser("small_pets", __doc__, report)
main.add_argument("models", nargs="+", help="shipped models, or .onnx files")
main.add_argument("--data", help="pets in class folders, or a .zip of them")
main.add_argument("--other", help="folders of anything else, or a .zip")
main.add_argument("--behind", default="places", help="folder of backgrounds (places)")
main.add_argument("--videos", type=int, help="the second table, of so many of each kind")
main.add_argument("--seconds", type=float, help="the third, timed for so long")

if __name__ == "__main__":
    sys.exit(main())
