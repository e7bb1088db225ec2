"""The images of archives, lists, tables and names of any bytes."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.commands.bulk_runs import answers, predict, rows_of

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge.bulk.parts import Part, list_parts
from catdog_edge.errors import PictureError


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


def test_a_part_reads_back_whatever_bytes_its_names_are_made_of() -> None:
    part = Part(3, "", ["a\udcff.png", "\u732b.png"])
    assert Part.from_json(part.to_json()) == part
    assert part.names == ["a\ufffd.png", "\u732b.png"]


def test_an_entry_of_a_zip_is_not_unpacked_beyond_the_size_that_it_states(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 20))
        archive.writestr("b.png", b"")
    part = next(list_parts([str(path)], [], 10))
    (name, method, start, packed, _, crc), empty = part.items
    lying = [name, method, start, packed, 0, crc]
    first, second = Part(0, part.source, [lying, empty]).readers()
    with pytest.raises(PictureError, match="damaged inside the zip"):
        first()
    assert second() == b""
