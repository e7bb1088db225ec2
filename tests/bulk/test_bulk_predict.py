"""`predict --out`: every image once, whatever happens in between; sources and formats."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.paths import TINY

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from catdog_edge.bulk.parts import Part
from catdog_edge.cli.main import main
from catdog_edge.images.decoder_warnings import decode_with_verdict, write_stderr

BROKEN = "broken.png"


@pytest.fixture(scope="module")
def encoded() -> dict[str, bytes]:
    """23 small noisy images of two classes, and a file that is none."""
    rng = np.random.default_rng(5)
    files = {BROKEN: b"\x89PNG\r\n\x1a\n and no more"}
    for number in range(23):
        colour = (0, 0, 200) if number % 3 else (200, 0, 0)
        image = np.clip(rng.normal(colour, 30, (40, 60, 3)), 0, 255).astype(np.uint8)
        files[f"{number:02}.png"] = cv2.imencode(".png", image)[1].tobytes()
    return files


@pytest.fixture
def album(encoded: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `shots` of these files; its parent is the current folder."""
    (tmp_path / "shots").mkdir()
    for name, data in encoded.items():
        (tmp_path / "shots" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shots"


def predict(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", str(TINY), *arguments], **more)


def rows_of(out: str) -> list[dict[str, Any]]:
    files = sorted(Path(out).glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def answers(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows without the folder of their files."""
    return [(row.pop("file")[-6:], *row.items()) for row in rows]


def test_the_rows_are_those_of_predict_and_an_unreadable_image_is_told_once(album: Path) -> None:
    done = predict("shots", "--out", "out", "--part", "10", "--threads", "3", "--json")
    plain = predict("shots", "--json")
    assert rows_of("out") == [json.loads(line) for line in plain.stdout.splitlines()]
    assert done.exit_code == plain.exit_code == 1
    assert done.stderr.count(BROKEN) == 1
    counts = json.loads(done.stdout)
    assert (counts["images"], counts["parts"], counts["unreadable"]) == (24, 3, 1)
    manifest = json.loads(Path("out/_manifest.json").read_text())
    assert manifest["complete"]
    assert [part["images"] for part in manifest["parts"]] == [10, 10, 4]
    again = predict("shots", "--out", "out", "--part", "10", "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (1, counts)
    assert BROKEN not in again.stderr
    assert "1 of 24 could not be read" in again.stderr


def test_a_killed_run_resumes_with_every_image_once(album: Path, encoded: dict[str, bytes]) -> None:
    for number in range(100):  # enough to be killed in the middle
        (album / f"more{number}.png").write_bytes(encoded["01.png"])
    command = [sys.executable, "-m", "catdog_edge", "predict", "--model", str(TINY), "shots"]
    command += ["--part", "1", "--out", "out"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    out = Path("out")
    while process.poll() is None and len(list(out.glob("part-*"))) < 5:
        time.sleep(0.005)
    process.kill()
    assert process.wait(60) == -9
    before = {file: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert 5 <= len(before) < 124
    assert not json.loads((out / "_manifest.json").read_text())["complete"]
    (out / ".part-000123-abcd1234.jsonl").write_text("half a li")  # what a kill leaves
    (album / "new.png").write_bytes(encoded["02.png"])  # a run keeps the list that it began with
    predict("shots", "--part", "1", "--out", "out")
    assert before.items() <= {file: file.stat().st_mtime_ns for file in out.glob("part-*")}.items()
    (album / "new.png").unlink()
    predict("shots", "--part", "1", "--out", "whole")
    for file in Path("whole").glob("[!_]*"):
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in out.iterdir()} == {file.name for file in Path("whole").iterdir()}
    assert len(rows_of("out")) == len({row["file"] for row in rows_of("out")}) == 124


def test_archives_and_lists_give_the_same_answers(album: Path, encoded: dict[str, bytes]) -> None:
    stored, packed = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile("a.zip", "w") as archive, tarfile.open("a.tar", "w") as tape:
        for name, data in sorted(encoded.items()):
            archive.writestr(f"in/{name}", data, stored if "1" in name else packed)
            info = tarfile.TarInfo(f"in/{name}")
            info.size = len(data)
            tape.addfile(info, io.BytesIO(data))
        archive.writestr("in/notes.txt", "no image")
        archive.writestr("__MACOSX/in/._00.png", "no image")
    predict("shots", "--out", "folder", "--part", "10")
    wanted = answers(rows_of("folder"))
    for source in ("a.zip", "a.tar"):
        predict(source, "--out", f"{source}.out", "--part", "10")
        rows = rows_of(f"{source}.out")
        assert rows[0]["file"] == f"{source}/in/00.png"
        assert answers(rows) == wanted
    damaged = bytearray(Path("a.zip").read_bytes())
    damaged[damaged.find(b"in/11.png") + 60] ^= 1
    Path("b.zip").write_bytes(damaged)
    done = predict("b.zip", "--out", "damaged")
    assert "b.zip/in/11.png: damaged inside the zip\n" in done.stderr
    assert sum("error" in row for row in rows_of("damaged")) == 2
    names = "\n".join(str(file) for file in sorted(album.iterdir()))
    predict("-", "--out", "list", input=names)
    assert answers(rows_of("list")) == wanted
    other = predict("-", "--out", "list", input=names[:-20])
    assert "results of a run with another list" in other.stderr


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_parquet_in_and_out(album: Path, encoded: dict[str, bytes], form: str) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    parquet = pytest.importorskip("pyarrow.parquet")
    values: list[Any] = [data for _, data in sorted(encoded.items())]
    if form == "struct":  # as Hugging Face's datasets have it
        values = [{"bytes": data, "path": None} for data in values]
    table = arrow.table({"image": values, "thumbnail": [b""] * 24, "label": [0] * 24})
    parquet.write_table(table, "a.parquet", row_group_size=7)
    done = predict("a.parquet", "--out", "out", "--part", "10", "--format", "parquet")
    assert (done.exit_code, done.stderr.count("#23: ")) == (1, 1)
    read = parquet.read_table("out").to_pylist()  # the list and the manifest are skipped
    rows = [{name: value for name, value in row.items() if value is not None} for row in read]
    assert [row.pop("file") for row in rows] == [f"a.parquet#{row}" for row in range(24)]
    wanted = json.loads(predict("shots/22.png", "--json").stdout)
    assert rows[22] == {name: wanted[name] for name in rows[22]}
    predict("shots", "--out", "folder")
    assert [row["label"] for row in rows[:-1]] == [row["label"] for row in rows_of("folder")[:-1]]
    parquet.write_table(arrow.table({"thumbnail": [b""], "preview": [b""]}), "b.parquet")
    assert "found thumbnail, preview" in predict("b.parquet", "--out", "b").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shots", "--out", "out", "--part", "5"], "another part (10, now 5)"),
        (["shots/01.png", "--out", "out", "--part", "10"], "another images"),
        (["shots", "--out", "out", "--part", "10", "--reject", "0.9"], "another reject"),
        (["none.zip", "--out", "new"], "none.zip cannot be read"),
        (["shots/01.png", "--out", "shots/01.png"], "01.png"),
        (["-", "--out", "new"], "there are no images"),
        (["s3:/x", "--out", "new", "--part", "0"], "--part"),
        (["shots", "--part", "10"], "--part needs --out"),
        (["shots", "--out", "new", "--address", "auto"], "--address needs --engine ray"),
        (["shots", "--out", "new", "--save", "x"], "exclude each other"),
    ],
)
def test_what_cannot_be_done_is_one_line(album: Path, arguments: list[str], said: str) -> None:
    predict("shots", "--out", "out", "--part", "10")
    done = predict(*arguments, input="")
    assert done.exit_code == 2 if "Usage" in done.stderr else 1
    assert said in done.stderr.splitlines()[-1]


def test_an_archive_that_is_gone_ends_the_run_and_spoils_no_image(album: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        for file in sorted(album.iterdir()):
            archive.write(file)
    predict("a.zip", "--out", "out", "--part", "10")
    manifest = Path("out/_manifest.json")
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    Path("out/part-000001.jsonl").unlink()
    Path("a.zip").rename("away.zip")
    gone = predict("a.zip", "--out", "out", "--part", "10")
    assert gone.exit_code == 1
    assert "a.zip cannot be read" in gone.stderr
    assert not Path("out/part-000001.jsonl").exists()
    Path("away.zip").rename("a.zip")
    predict("a.zip", "--out", "out", "--part", "10")
    assert len(rows_of("out")) == 24


def test_a_part_that_holds_other_images_is_found(album: Path) -> None:
    predict("shots", "--out", "out", "--part", "10")
    manifest, part = Path("out/_manifest.json"), Path("out/part-000001.jsonl")
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    whole = part.read_bytes()
    part.write_bytes(b"\n".join(whole.split(b"\n")[1:]))
    done = predict("shots", "--out", "out", "--part", "10")
    assert done.exit_code == 1
    assert "part-000001.jsonl in out does not hold its images; delete it" in done.stderr
    part.unlink()
    predict("shots", "--out", "out", "--part", "10")
    assert part.read_bytes() == whole
    manifest.unlink()
    assert "parts and no _manifest.json" in predict("shots", "--out", "out").stderr


def test_programs_for_camera_traps_get_one_file_more(album: Path) -> None:
    (album / "day2").mkdir()
    (album / "00.png").rename(album / "day2" / "00.png")
    grey = np.full((40, 60, 3), 128, np.uint8)
    cv2.imwrite("shots/grey, still.png", grey)
    predict("shots", "--out", "md", "--format", "megadetector", "--part", "10", "--reject", "0.6")
    document = json.loads(Path("md/megadetector.json").read_text())
    float(document["info"]["format_version"])
    assert document["detection_categories"] == {"1": "animal"}
    categories = document["classification_categories"]
    rows, images = rows_of("md"), {image["file"]: image for image in document["images"]}
    assert len(rows) == len(images) == len(document["images"]) == 25
    for row in rows:
        image = images[row["file"]]
        if row.get("label", "neither") == "neither":
            assert image["detections"] == (None if "error" in row else [])
            assert image.get("failure") == row.get("error")
            continue
        (found,) = image["detections"]
        assert (found["category"], found["bbox"]) == ("1", [0, 0, 1, 1])
        assert found["conf"] == row["score"]
        assert categories[found["classifications"][0][0]] == row["label"]
        assert found["classifications"][0][1] == row["confidence"] > found["classifications"][1][1]
    assert images["shots/grey, still.png"]["detections"] == []
    predict("shots", "--out", "tl", "--format", "timelapse")
    with Path("tl/timelapse.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 25
    first = table[-2]
    assert (first["File"], first["RelativePath"], first["Label"]) == (
        "00.png",
        "shots\\day2",
        "dog",
    )
    assert table[-1]["File"] == "grey, still.png"
    assert next(row for row in table if row["File"] == BROKEN)["Label"] == ""


def test_large_jpegs_at_a_reduced_scale(album: Path) -> None:
    noise = np.random.default_rng(0).normal((90, 100, 120), 30, (600, 900, 3))
    cv2.imwrite("noise.jpg", noise.clip(0, 255).astype(np.uint8))
    predict("noise.jpg", "--out", "full")
    predict("noise.jpg", "--out", "reduced", "--reduce")
    for full, reduced in zip(rows_of("full"), rows_of("reduced"), strict=True):
        assert full["label"] == reduced["label"]
        assert 0 < abs(full["confidence"] - reduced["confidence"]) < 0.1


def test_a_part_reads_back_whatever_bytes_its_names_are_made_of() -> None:
    part = Part(3, "", ["a\udcff.png", "\u732b.png"])
    assert Part.from_json(part.to_json()) == part
    assert part.names == ["a\ufffd.png", "\u732b.png"]


@pytest.mark.skipif(not hasattr(os, "pread"), reason="stderr is not redirected there")
def test_progress_is_seen_while_decoders_run(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> str:
        os.write(2, b"Corrupt JPEG data: bad\n")
        write_stderr("600 of 1,200")
        return capfd.readouterr().err

    with contextlib.suppress(OSError):
        seen, _ = decode_with_verdict(decode)
    assert seen == "600 of 1,200"
