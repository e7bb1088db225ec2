"""`predict --out`: every image once, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands.bulk_runs import BROKEN, predict, rows_of
from support.paths import TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


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
        (["shots", "--out", "new", "--save", "x"], "--out writes no copies"),
        (["shots", "--out", "new", "--explain"], "--out writes no copies"),
    ],
)
def test_what_cannot_be_done_is_one_line(album: Path, arguments: list[str], said: str) -> None:
    predict("shots", "--out", "out", "--part", "10")
    done = predict(*arguments, input="")
    assert done.exit_code == 2 if "Usage" in done.stderr else 1
    assert said in done.stderr.splitlines()[-1]
