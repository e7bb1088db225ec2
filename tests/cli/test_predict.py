"""`catdog-edge predict`: files, folders, patterns and lists in, one answer for each."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.paths import DATA, TINY

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from support.commands.predict_command import BLUE, RED, answers, paint, predict

from catdog_edge.cli.main import main
from catdog_edge.cli.options import MOST_THREADS
from catdog_edge.cli.predict import FileResult
from catdog_edge.images.draw import COLOURS
from catdog_edge.images.find import split_list
from catdog_edge.spec import Prediction
from catdog_edge.system.threads import MOST


def test_files_folders_and_patterns(album: Path) -> None:
    below = str(Path("below") / "c.png")
    assert answers(predict("a.png", "below", "--json")) == {"a.png": "cat", below: "dog"}
    assert answers(predict("*.png", "--json")) == {"a.png": "cat"}
    assert set(answers(predict("**/*.png", "--json"))) == {"a.png", below}
    # Each once, however often it was named; what is no picture is left alone.
    assert list(answers(predict("a.png", ".", "a.*", "--json"))) == ["a.png", "b.JPG", below]
    assert predict("a.png").exit_code == 0


def test_a_name_that_is_a_pattern_as_well_is_the_file_of_that_name(album: Path) -> None:
    paint(album / "c[ab].png", BLUE)
    paint(album / "ca.png", RED)
    assert answers(predict("c[ab].png", "--json")) == {"c[ab].png": "dog"}


def test_without_arguments_it_takes_the_current_folder_and_says_so(album: Path) -> None:
    done = predict("--json")
    assert len(answers(done)) == 3
    assert "3 images below the current folder" in done.stderr


def test_a_provider_that_does_not_start_is_one_plain_line(album: Path) -> None:
    from catdog_edge import ProviderError
    from catdog_edge.runtime.model_file import find_model
    from catdog_edge.runtime.providers import selection, start

    refused = 0
    for name in selection.accelerators():
        try:
            selection.open_model(find_model(TINY), name, start.Settings(1, spin=False))
        except ProviderError:
            refused += 1
    selection._warned.clear()
    done = predict("a.png", "--json")
    assert done.stderr.count("continuing without it") == refused
    assert len(done.stderr.splitlines()) == 1 + refused


def test_a_list_on_standard_input(album: Path) -> None:
    done = predict("-", "--json", input="a.png\n\nbelow/c.png\r\n")
    assert list(answers(done).values()) == ["cat", "dog"]
    empty = predict("-", input="")
    assert empty.exit_code == 1
    assert "standard input" in empty.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_a_list_with_a_byte_order_mark(encoding: str) -> None:
    """As PowerShell's `>` and editors of Windows write it."""
    names = "a.png\r\nbelow/\u732b.png\r\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert split_list((mark + names).encode(encoding)) == ["a.png", "below/\u732b.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "the current"), (["0.png"], "the current"), (["/0.png", "--save", "x"], "the current")],
)
def test_a_current_folder_that_was_deleted_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = predict(*arguments)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"catdog-edge: {said} folder is not there")


def test_the_table_is_for_people(album: Path) -> None:
    done = predict("a.png", "below")
    assert done.exit_code == 0
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["label", "conf", "image"]
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


def test_a_damaged_picture_is_named_and_kept_on_request(album: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    third = len(data) // 3
    (album / "torn.jpg").write_bytes(data[:third] + bytes(third) + data[2 * third :])
    done = predict("torn.jpg", "a.png", "--json")
    assert done.exit_code == 1
    assert list(answers(done).values()) == ["error", "cat"]
    assert "catdog-edge: torn.jpg: damaged: " in done.stderr
    assert "--keep-damaged" in done.stderr
    kept = predict("torn.jpg", "--json", "--keep-damaged")
    assert kept.exit_code == 0
    assert set(answers(kept).values()) <= {"cat", "dog", "neither"}


def test_tiles_find_a_small_pet_and_show_its_box(album: Path) -> None:
    frame = np.full((120, 240, 3), 128, np.uint8)
    frame[60:100, 180:220] = (0, 0, 255)
    cv2.imwrite("yard.png", frame)
    arguments = ["--model", str(DATA / "tiny_known.onnx"), "yard.png"]
    assert answers(predict(*arguments, "--json")) == {"yard.png": "neither"}
    done = predict(*arguments, "--tiles", "--json", "--save", "out")
    found = json.loads(done.stdout)
    left, top, width, height = found["box"]
    assert (found["label"], width, height) == ("cat", 60, 60)
    assert predict(*arguments, "--tiles").stdout.endswith(f"yard.png  box {left},{top},60,60\n")
    copy = cv2.imread(str(Path("out") / "yard.png"))
    assert (copy[top, left : left + 60] == COLOURS[0]).all()
    assert answers(predict("a.png", "below", "--tiles", "--json")) == answers(
        predict("a.png", "below", "--json")
    )


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
    "arguments",
    [
        ["--provider", "abacus"],
        ["--threads", "0"],
        ["--threads", str(MOST + 1)],
        ["--reject", "2"],
        ["--nothing"],
    ],
)
def test_wrong_usage_exits_2(album: Path, arguments: list[str]) -> None:
    assert predict("a.png", *arguments).exit_code == 2


def test_the_most_threads_are_the_most_everywhere(album: Path) -> None:
    assert MOST_THREADS == MOST
    assert predict("a.png", "--provider", "cpu", "--threads", str(MOST)).exit_code == 0
    stream = ["stream", "--source", "a.png", "--threads", str(MOST + 1)]
    assert CliRunner().invoke(main, stream).exit_code == 2


def test_a_list_of_find_and_what_it_may_hold(album: Path) -> None:
    """Folders and patterns in a list are what they are as arguments; any name goes with zeros."""
    paint(album / "two\nlines.png", BLUE)
    done = predict("-", "--json", input=b"a.png\0two\nlines.png\0")
    assert answers(done) == {"a.png": "cat", "two\nlines.png": "dog"}
    below = str(Path("below") / "c.png")
    assert answers(predict("-", "--json", input="below\n*.JPG\n")) == {below: "dog", "b.JPG": "cat"}
    wrong = predict("-", "--json", input=b"nowhere.png\0a.png\0")
    assert wrong.exit_code == 1
    assert answers(wrong) == {"nowhere.png": "error", "a.png": "cat"}


def command(*arguments: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """`predict` in a process of its own, by the shell, with the toy model."""
    typed = shlex.join([sys.executable, "-m", "catdog_edge", "predict", *map(str, arguments)])
    more.setdefault("env", os.environ)
    return subprocess.run(
        f"{typed} --provider cpu --model {shlex.quote(str(TINY))} {more.pop('shell_end', '')}",
        shell=True,
        capture_output=True,
        timeout=60,
        check=False,
        **more,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_the_output_cannot_say(album: Path, encoding: str) -> None:
    names = ["\u732b\U0001f63a.png", "\u00e9.png"]
    for name in names:
        paint(album / name, RED)
    odd = paint(album / "x.png", RED).rename(os.fsdecode(b"\xff.png"))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    table = command(*names, odd, "nowhere\u732b.png", env=environment)
    assert table.returncode == 1
    assert b"Traceback" not in table.stderr
    encoding = encoding.replace("ascii", "utf-8")  # click takes nobody at his word there
    lines = table.stdout.decode(encoding).splitlines()
    assert [line.split()[0] for line in lines] == ["label", "cat", "cat", "cat", "-"]
    done = command(*names, odd, "--json", env=environment)
    documents = [json.loads(line) for line in done.stdout.decode(encoding).splitlines()]
    assert [document["file"] for document in documents] == [*names, "\ufffd.png"]


needs_full = pytest.mark.skipif(
    not Path("/dev/full").is_char_device(), reason="needs a shell and /dev/full"
)


@needs_full
def test_a_full_standard_error_costs_no_answer(album: Path) -> None:
    done = command("a.png", "--json", shell_end="2>/dev/full")
    assert done.returncode == 0
    assert json.loads(done.stdout)["label"] == "cat"
    assert command("nowhere.png", shell_end="2>/dev/full").returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_standard_input_that_cannot_be_read_is_one_line(album: Path) -> None:
    done = command("-", shell_end="0>x")
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("catdog-edge: standard input cannot be read: ")


@needs_full
@pytest.mark.parametrize(
    ("end", "said"),
    [(">/dev/full", b"cannot write the output: "), (">&-", b"standard output is closed")],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_takes_nothing_is_one_line(
    album: Path, end: str, said: bytes, unbuffered: str
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = command("a.png", "--json", shell_end=end, env=environment)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_what_a_terminal_obeys_is_escaped(album: Path) -> None:
    name = "red\x1b[31m\nline\u202egnp.png"
    paint(album / name, RED)
    done = predict(name, "no\x1b[31m.png")
    assert not {"\x1b", "\u202e"} & set(done.output)
    assert "red\\x1b[31m\\nline\\u202egnp.png" in done.stdout
    assert "no\\x1b[31m.png" in done.stdout
    assert len(done.stdout.splitlines()) == 3
    assert list(answers(predict(name, "--json"))) == [name]
    assert "\x1b" not in predict("a.png", "--save", "out\x1b[31m").output
    assert "\x1b" not in predict("a.png", "--model", "no\x1b[31m.onnx").output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_refused_without_waiting(album: Path) -> None:
    os.mkfifo("pipe.png")
    done = command("pipe.png", "a.png")
    assert done.returncode == 1
    assert b"pipe.png (not an image file: it is a pipe, " in done.stdout
    assert b"cat" in done.stdout


def test_a_folder_that_may_not_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "a.png", RED)
    paint(tmp_path / "locked" / "b.png", RED)
    scan = os.scandir

    def refuse(path: str) -> object:  # whoever tests as root can open everything
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for searched in (tmp_path, tmp_path / "locked"):
        done = predict(str(searched), "--json")
        assert done.exit_code == 1
        assert answers(done)[str(tmp_path / "locked")] == "error"
        assert "this folder cannot be searched: Permission denied" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_search_finds_a_file_once(album: Path) -> None:
    (album / "below" / "loop").symlink_to(album)
    (album / "z.png").symlink_to("a.png")
    below = str(Path("below") / "c.png")
    assert list(answers(predict("**/*.png", ".", "--json"))) == ["a.png", below, "b.JPG"]
    # What is named is answered under each of its names.
    assert list(answers(predict("a.png", "z.png", "--json"))) == ["a.png", "z.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_of_any_bytes_is_answered(album: Path) -> None:
    Path("a.png").rename(os.fsdecode(b"\xff\xe9.png"))
    done = predict("*.png", "--json")
    assert list(answers(done).values()) == ["cat"]
    assert list(answers(predict("-", "--json", input=b"\xff\xe9.png\n")).values()) == ["cat"]


def test_columns_stand_under_their_heads_whatever_the_labels() -> None:
    long = Prediction("golden retriever", 0.8, (0.8, 0.2), ("golden retriever", "cat"))
    none = Prediction("neither", 0.8, (0.8, 0.2), long.labels, 1.0, 0.2, 0.5)
    rows = [FileResult(Path("a.png"), one, "not an image").row(16) for one in (long, none, None)]
    assert {row.index("a.png") for row in rows} == {rows[0].index("a.png")}
    assert rows[2].endswith("a.png (not an image)")
