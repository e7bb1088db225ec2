"""The folder of results."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from support.commands.bulk_runs import predict

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


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


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}", b'{"settings": []}'])
def test_a_damaged_manifest_is_one_line(album: Path, damage: bytes) -> None:
    predict("shots", "--out", "out")
    Path("out/_manifest.json").write_bytes(damage)
    done = predict("shots", "--out", "out")
    wanted = "_manifest.json in out is damaged; choose another folder"
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, f"catdog-edge: {wanted}")


@pytest.mark.parametrize("kind", ["jsonl", "megadetector"])
def test_an_unfinished_run_names_its_list_of_images_if_it_is_lost(album: Path, kind: str) -> None:
    predict("shots", "--out", "out", "--format", kind)
    manifest, images = Path("out/_manifest.json"), Path("out/_images.jsonl")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"complete": False}))
    images.write_text("half a li")
    for said in ("_images.jsonl in out is damaged", "_images.jsonl, the list of the images, is"):
        done = predict("shots", "--out", "out", "--format", kind)
        assert done.exit_code == 1
        assert said in done.stderr.splitlines()[-1]
        images.unlink(missing_ok=True)


def test_a_run_without_images_leaves_nothing_and_can_be_repeated(album: Path) -> None:
    for images, wanted in ([], 1), (["01.png"], 0):
        with zipfile.ZipFile("a.zip", "w") as archive:
            archive.writestr("notes.txt", "no image")
            for name in images:
                archive.write(album / name)
        done = predict("a.zip", "--out", "out")
        assert done.exit_code == wanted
        assert ("there are no images" in done.stderr) is (not images)
        assert Path("out").exists() is bool(images)
