"""`catdog-edge predict --save`: annotated copies."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from support.commands.predict_command import BLUE, RED, answers, paint, predict

from catdog_edge.images.draw import COLOURS
from catdog_edge.system.files import atomic_write, cannot_write


def test_save_draws_on_copies(album: Path) -> None:
    before = (album / "a.png").read_bytes()
    done = predict("a.png", "b.JPG", "below", "--save", "out", "--reject", "0")
    assert done.exit_code == 0
    assert sorted(file.name for file in (album / "out").iterdir()) == ["a.png", "b.jpg", "c.png"]
    copy = cv2.imread(str(album / "out" / "a.png"))
    assert copy.shape == (40, 60, 3)
    assert (copy[0, 0] == RED).all()
    assert (copy[-1, 0] == COLOURS[0]).all()
    assert (album / "a.png").read_bytes() == before


def test_save_numbers_equal_names_and_spares_the_pictures(album: Path) -> None:
    paint(album / "below" / "a.png", BLUE)
    assert predict("a.png", "below/a.png", "--save", "out").exit_code == 0
    assert sorted(file.name for file in (album / "out").iterdir()) == ["a-2.png", "a.png"]
    before = {file: file.read_bytes() for file in (album / "a.png", album / "below" / "a.png")}
    assert predict("a.png", "--save", ".").exit_code == 0
    assert predict("a.png", "below/a.png", "--save", "below").exit_code == 0
    assert {file: file.read_bytes() for file in before} == before
    assert (album / "a-2.png").is_file()
    assert (album / "below" / "a-2.png").is_file()


def test_a_second_run_does_not_answer_its_own_copies(album: Path) -> None:
    first = answers(predict(".", "--save", "out", "--json"))
    assert list(answers(predict(".", "--save", "out", "--json"))) == list(first)


def test_the_folder_of_the_copies_is_not_searched_for_pictures(album: Path) -> None:
    for arguments in (
        ["below", "--save", "below"],
        ["below/deep", "--save", "below"],
        ["--save", "."],
    ):
        (album / "below" / "deep").mkdir(exist_ok=True)
        done = predict(*arguments)
        assert done.exit_code == 1
        assert "is where --save puts the annotated copies" in done.stderr.splitlines()[-1]
    assert [file.name for file in (album / "below").iterdir() if file.is_file()] == ["c.png"]


def test_save_overwrites_nobodys_file(album: Path) -> None:
    (album / "out").mkdir()
    (album / "out" / "a.png").write_bytes(b"somebody's own")
    (album / "out" / "b.jpg").symlink_to("nowhere")
    done = predict("a.png", "b.JPG", "--save", "out")
    assert done.exit_code == 0
    assert "2 of them numbered" in done.stderr
    assert (album / "out" / "a.png").read_bytes() == b"somebody's own"
    names = sorted(file.name for file in (album / "out").iterdir())
    assert names == ["a-2.png", "a.png", "b-2.jpg", "b.jpg"]
    assert not (album / "out" / "nowhere").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of 255 bytes")
def test_long_names_are_shortened_in_copies(album: Path) -> None:
    long = [paint(album / "x.png", RED).rename("\u732b" * 83 + ".png").name, "a" * 251 + ".png"]
    paint(album / "y.png", RED).rename(long[1])
    for count in (2, 4):
        assert predict(*long, "--save", "out").exit_code == 0
        assert len(list((album / "out").iterdir())) == count
    assert (album / "out" / long[1]).is_file()


def test_a_copy_that_cannot_be_written_does_not_stop_the_rest(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catdog_edge.cli import predict as module

    def full(path: Path) -> contextlib.AbstractContextManager[Path]:
        if path.stem == "b":
            raise cannot_write(path, OSError(28, "No space left on device"))
        return atomic_write(path)

    monkeypatch.setattr(module, "atomic_write", full)
    done = predict("b.JPG", "a.png", "--save", "out", "--json")
    assert done.exit_code == 1
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [document["label"] for document in documents] == ["cat", "cat"]
    assert "cannot write" in documents[0]["error"]
    assert "saved" in documents[1]
    assert "1 of 2 copies are not written" in done.stderr
    assert [file.name for file in (album / "out").iterdir()] == ["a.png"]
    assert "read" not in done.stderr.splitlines()[-1]


def test_a_copy_too_large_for_its_format_does_not_stop_the_rest(album: Path) -> None:
    wide = cv2.imencode(".png", np.zeros((16, 66_000, 3), np.uint8))[1]  # JPEG ends at 65,500
    (album / "wide.jpg").write_bytes(wide.tobytes())
    done = predict("wide.jpg", "a.png", "--save", "out", "--json")
    assert done.exit_code == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert "label" in first
    assert first["error"].endswith("66000x16 pixels cannot be encoded as .jpg")
    assert "saved" in second
    assert [file.name for file in (album / "out").iterdir()] == ["a.png"]


def test_explain_colours_the_copies(album: Path) -> None:
    cat = cv2.imread(str(ROOT / "examples" / "cat.jpg"))
    cv2.imwrite("cat.png", cat)
    done = predict("cat.png", "--model", "fast", "--save", "out", "--explain", "--tiles")
    assert done.exit_code == 0, done.output
    copy = cv2.imread("out/cat.png")
    changed = np.abs(copy[:250].astype(int) - cat[:250]).max(axis=2)
    assert (changed > 60).mean() > 0.02  # of the heat
    assert (changed[:, :60] < 2).all()  # cut off before the model sees it
    plain = predict("a.png", "--explain")
    assert plain.exit_code == 2
    assert "--explain needs --save" in plain.stderr
    without = predict("a.png", "--save", "out", "--explain")
    assert without.exit_code == 1
    assert "catdog-edge export --heat-map" in without.stderr.splitlines()[-1]
    assert not Path("out/a.png").exists()
