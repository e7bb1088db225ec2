"""`catdog-edge predict`: files, folders, patterns and lists in, one answer for each."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from catdog_edge.annotate import COLOURS, GREY, draw
from catdog_edge.cli import main
from catdog_edge.spec import Prediction

TINY = Path(__file__).parent / "data" / "tiny.onnx"
RED, BLUE = (0, 0, 200), (200, 0, 0)


def paint(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    coded, data = cv2.imencode(file.suffix, np.full((*size, 3), colour, np.uint8))
    assert coded
    file.write_bytes(data.tobytes())
    return file


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cats, a dog below, a text file; the current folder."""
    paint(tmp_path / "a.png", RED)
    paint(tmp_path / "b.JPG", RED)
    paint(tmp_path / "below" / "c.png", BLUE)
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*arguments: str, **more: object) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", str(TINY), *arguments], **more)  # type: ignore[arg-type]


def answers(result: Result) -> dict[str, str]:
    """File and label, of `--json`."""
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    return {document["file"]: document.get("label", "error") for document in documents}


def test_files_folders_and_patterns(album: Path) -> None:
    below = str(Path("below") / "c.png")
    assert answers(predict("a.png", "below", "--json")) == {"a.png": "cat", below: "dog"}
    assert answers(predict("*.png", "--json")) == {"a.png": "cat"}
    assert set(answers(predict("**/*.png", "--json"))) == {"a.png", below}
    # Each once, however often it was named; what is no picture is left alone.
    assert list(answers(predict("a.png", ".", "a.*", "--json"))) == ["a.png", "b.JPG", below]
    assert predict("a.png").exit_code == 0


def test_without_arguments_it_takes_the_current_folder_and_says_so(album: Path) -> None:
    done = predict("--json")
    assert len(answers(done)) == 3
    assert "3 pictures below the current folder" in done.stderr


def test_a_provider_that_does_not_start_is_one_plain_line(album: Path) -> None:
    from catdog_edge import ProviderError, automatic, providers
    from catdog_edge.modelfile import find_model

    refused = 0
    for name in automatic.offered():
        try:
            providers.open_session(find_model(TINY), name, providers.Settings(1, spin=False))
        except ProviderError:
            refused += 1
    automatic._warned.clear()
    done = predict("a.png", "--json")
    assert done.stderr.count("going on without it") == refused
    assert "RuntimeWarning" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 + refused


def test_a_list_on_standard_input(album: Path) -> None:
    done = predict("-", "--json", input="a.png\n\nbelow/c.png\r\n")
    assert list(answers(done).values()) == ["cat", "dog"]
    empty = predict("-", input="")
    assert empty.exit_code == 1
    assert "standard input" in empty.stderr


def test_the_table_is_for_people(album: Path) -> None:
    done = predict("a.png", "below")
    assert done.exit_code == 0
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["answer", "sure", "picture"]
    assert first.split() == ["cat", "1.00", "##########", "a.png"]
    assert second.split()[0] == "dog"
    assert "provider" in done.stderr


def test_a_bad_picture_is_reported_and_the_rest_go_on(album: Path) -> None:
    whole = (album / "b.JPG").read_bytes()
    (album / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (album / "empty.png").touch()
    done = predict("cut.jpg", "nowhere.png", "empty.png", "notes.txt", "a.png", "--json")
    assert done.exit_code == 1
    assert list(answers(done).values()) == ["error"] * 4 + ["cat"]
    for name in ("cut.jpg", "nowhere.png", "empty.png", "notes.txt"):
        assert f"catdog-edge: {name}: " in done.stderr
    assert "4 of 5 could not be read" in done.stderr
    table = predict("cut.jpg", "a.png")
    assert table.exit_code == 1
    assert "cut.jpg" in table.stdout
    assert "cat" in table.stdout


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


def test_what_holds_no_picture_does_not_stop_the_rest(album: Path) -> None:
    (album / "hollow").mkdir()
    done = predict("hollow", "none*.png", "x" * 300 + ".png", "a.png", "--json")
    assert done.exit_code == 1
    assert answers(done)["a.png"] == "cat"
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none*.png"], "1 of 1 could not be read"),
        (["hollow"], "1 of 1 could not be read"),
        (["a.png", "--model", "nowhere.onnx"], "there is no model nowhere.onnx"),
        (["a.png", "--model", "notes.txt"], "not an ONNX file"),
        (["a.png", "--save", "notes.txt/x"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_one_line(album: Path, arguments: list[str], said: str) -> None:
    (album / "hollow").mkdir()
    done = predict(*arguments)
    assert done.exit_code == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments", [["--provider", "abacus"], ["--threads", "0"], ["--reject", "2"], ["--nothing"]]
)
def test_wrong_usage_exits_2(album: Path, arguments: list[str]) -> None:
    assert predict("a.png", *arguments).exit_code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_of_any_bytes_is_answered(album: Path) -> None:
    Path("a.png").rename(os.fsdecode(b"\xff\xe9.png"))
    done = predict("*.png", "--json")
    assert list(answers(done).values()) == ["cat"]
    assert list(answers(predict("-", "--json", input=b"\xff\xe9.png\n")).values()) == ["cat"]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (16, 16), (96, 128), (1080, 1920)])
def test_drawing_fits_any_size_and_leaves_the_frame_alone(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 180, np.uint8)
    sure = Prediction("dog", 1.0, (0.0, 1.0), ("cat", "dog"))
    drawn = draw(frame, sure)
    assert drawn.shape == frame.shape
    assert (frame == 180).all()
    assert (drawn[-1] == COLOURS[1]).all()
    half = draw(frame, Prediction("neither", 0.5, (0.5, 0.5), ("cat", "dog")))
    if size[1] > 10:
        assert (half[-1, 0] == GREY).all()
        assert not (half[-1, -1] == GREY).all()
