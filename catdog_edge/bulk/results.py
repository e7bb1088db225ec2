"""The folder of results: one file per part in JSON lines or Parquet, and the manifest.

A part whose file exists is done: writes are atomic. The list of parts is written once, before
the first part, so that a resumed run has the same parts even if the folders have changed.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from catdog_edge.bulk.parts import Part
from catdog_edge.bulk.storage import Folder, pyarrow
from catdog_edge.errors import CatdogError

MANIFEST = "_manifest.json"  # readers of folders of Parquet files skip names that begin with _
LIST = "_images.jsonl"
SCHEMA = 1  # version of the manifest

Row = dict[str, Any]
"""`file`, and the fields of `Prediction.to_json`, or `error`."""


@dataclass(frozen=True)
class RunCounts:
    """Counts in a manifest."""

    images: int
    parts: int
    unreadable: int = 0
    labels: Mapping[str, int] | None = None


class Results:
    """Results in a local folder, which need not exist, or at an address.

    `kind` is `parquet`, or anything else for JSON lines; `settings` are JSON and must be the same
    in a resumed run. Raises `CatdogError` if the folder contains results of another run.
    """

    def __init__(
        self, location: str, kind: str, labels: Sequence[str], settings: Mapping[str, Any]
    ) -> None:
        self.folder, self._labels = Folder(location), labels
        self.kind = "parquet" if kind == "parquet" else "jsonl"
        self.settings = json.loads(json.dumps({"schema": SCHEMA, **settings}))
        names = self.folder.names()
        self.done = {name for name in names if name.startswith("part-")}
        self.counts: RunCounts | None = None
        self.complete = False
        if MANIFEST in names:
            try:
                with self.folder.open(MANIFEST) as stream:
                    document = json.loads(stream.read())
                before, self.complete = dict(document["settings"]), document["complete"]
                self.counts = RunCounts(**document["counts"])
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(self.folder, MANIFEST) from error
            self._check(before)
        elif self.done:
            raise CatdogError(f"{location} has parts and no {MANIFEST}; choose another folder")

    def _check(self, before: Mapping[str, Any]) -> None:
        for name, value in self.settings.items():
            if before.get(name) != value:
                what = f"{self.folder.location} holds results of a run with another {name}"
                raise CatdogError(
                    f"{what} ({before.get(name)}, now {value}); choose another folder"
                )

    def start(self, parts: Iterable[Part]) -> RunCounts:
        """Write the list of parts, and the manifest of a new run; nothing if there are none."""
        parts = iter(parts)
        first = next(parts, None)
        if first is None:  # a run that begins later may find images
            return RunCounts(0, 0)
        images = planned = 0

        def lines() -> Iterator[bytes]:
            nonlocal images, planned
            for part in itertools.chain([first], parts):
                images, planned = images + len(part.items), planned + 1
                yield f"{part.to_json()}\n".encode()

        self.folder.write(LIST, lines())
        self.counts = RunCounts(images, planned)
        self._write_manifest(self.counts, [])
        return self.counts

    def parts(self) -> Iterator[Part]:
        """Read the list of parts, done or not; `CatdogError` if it is missing or damaged."""
        try:
            with self.folder.open(LIST) as stream:
                yield from map(Part.from_json, stream)
        except FileNotFoundError as error:
            what = f"{LIST}, the list of the images, is missing in {self.folder.location}"
            raise CatdogError(f"{what}; choose another folder") from error
        except (TypeError, ValueError) as error:
            raise _damaged(self.folder, LIST) from error

    def file(self, part: Part) -> str:
        """Return the name of the file with the results of a part."""
        return f"part-{part.number:06}.{self.kind}"

    def write(self, part: Part, rows: Sequence[Row]) -> None:
        """Write the results of a part."""
        self.folder.write(self.file(part), [_encode(self.kind, rows, self._labels)])

    def rows(self, part: Part) -> list[Row]:
        """Read the results of a part."""
        with self.folder.open(self.file(part)) as stream:
            return _decode(self.kind, stream.read())

    def finish(self) -> RunCounts:
        """Complete the manifest; `CatdogError` unless the parts contain every image once."""
        files: list[Row] = []
        labels: Counter[str] = Counter()
        images = unreadable = 0
        for part in self.parts():
            try:
                rows = self.rows(part)
            except (OSError, ValueError):
                rows = []
            if [row["file"] for row in rows] != part.names:
                what = f"{self.file(part)} in {self.folder.location} does not hold its images"
                raise CatdogError(f"{what}; delete it and run the same command again")
            bad = sum(row.get("label") is None for row in rows)
            files.append({"file": self.file(part), "images": len(rows), "unreadable": bad})
            labels.update(row["label"] for row in rows if row.get("label") is not None)
            images, unreadable = images + len(rows), unreadable + bad
        self.counts = RunCounts(images, len(files), unreadable, dict(labels.most_common()))
        self._write_manifest(self.counts, files)
        for name in self.folder.names():
            if name.startswith(".part-"):  # temporary files of processes that were killed
                self.folder.remove(name)
        return self.counts

    def _write_manifest(self, counts: RunCounts, files: Sequence[Row]) -> None:
        document = {
            "complete": bool(files),
            "counts": asdict(counts),
            "settings": self.settings,
            "parts": files,
        }
        self.folder.write(MANIFEST, [json.dumps(document, indent=1).encode()])


def _damaged(folder: Folder, name: str) -> CatdogError:
    return CatdogError(f"{name} in {folder.location} is damaged; choose another folder")


def _encode(kind: str, rows: Sequence[Row], labels: Sequence[str]) -> bytes:
    if kind == "jsonl":
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    arrow, sink = pyarrow("pyarrow"), io.BytesIO()
    text, real = arrow.string(), arrow.float64()
    columns = {
        "file": text,
        "label": text,
        "confidence": real,
        "probabilities": arrow.struct([(label, real) for label in labels]),
        "score": real,
        "threshold": real,
        "box": arrow.list_(arrow.int64()),
        "error": text,
    }
    table = arrow.Table.from_pylist(rows, arrow.schema(columns))
    pyarrow("pyarrow.parquet").write_table(table, sink)
    return sink.getvalue()


def _decode(kind: str, data: bytes) -> list[Row]:
    if kind == "jsonl":
        return [json.loads(line) for line in data.splitlines()]
    table = pyarrow("pyarrow.parquet").read_table(io.BytesIO(data))
    rows: list[Row] = table.to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
