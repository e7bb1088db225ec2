"""What `eval` reports: sources, thresholds, what is left out, and its lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.images.image_sets import image, write

torch = pytest.importorskip("torch", reason="needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec, Rejection, crop_and_squash
from catdog_edge.training import evaluate
from catdog_edge.training.evaluate import EvaluationReport, SourceResult, evaluate_weights
from catdog_edge.training.evaluation import classification_report
from catdog_edge.training.evaluation.rejection import ThresholdRow
from catdog_edge.training.models.checkpoint import save_checkpoint
from catdog_edge.training.models.registry import CENTRED, architecture
from catdog_edge.training.runs.run_folder import Run


def weights(path: Path, rejection: Rejection | None, **trained_on: object) -> Path:
    spec = ModelSpec(
        architecture="edge_cnn", labels=("cat", "dog"), height=32, width=32,
        resize=crop_and_squash(32, 32), normalization=CENTRED, rejection=rejection,
        trained_on=trained_on,
    )  # fmt: skip
    torch.manual_seed(0)
    save_checkpoint(path, architecture("edge_cnn").build(spec.logits).state_dict(), spec)
    return path


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A data set of two sources, and negatives of two kinds."""
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    names = [
        f"{c}/{s}-{n}.jpg" for c in ("cat", "dog") for s in ("web", "phone") for n in range(12)
    ]
    write(tmp_path / "set", {name: image(number) for number, name in enumerate(names)})
    others = [f"{kind}/street-{n}.jpg" for kind in ("car", "tree") for n in range(15)]
    write(tmp_path / "others", {name: image(500 + number) for number, name in enumerate(others)})
    return str(tmp_path / "set"), str(tmp_path / "others")


def test_sources_that_were_left_out_are_tested_whole(
    tmp_path: Path, sets: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    data, other = sets
    file = weights(tmp_path / "w.pt", Rejection("known", 0.4), left_out=["web", "street"])
    with caplog.at_level("INFO", "catdog_edge"):
        report = evaluate_weights(file, [data], [other], tmp_path / "roc.png")
    assert "images of none of the classes" in caplog.text
    assert (tmp_path / "roc.png").is_file()
    rows = {one.name: one for one in report.sources}
    assert set(rows) == {"web", "phone", "drawn", "car/street", "tree/street"}
    assert [rows["web"].images, rows["web"].left_out, rows["phone"].left_out] == [24, True, False]
    assert (rows["drawn"].accuracy, rows["drawn"].left_out) == (None, False)
    assert (rows["car/street"].images, rows["car/street"].left_out) == (15, True)
    assert rows["web"].accuracy is not None
    assert rows["web"].answered is not None
    share, low, high = rows["web"].accuracy
    assert low <= share <= high
    assert set(report.rejection) == {"drawn", "others"}
    drawn, others = report.rejection["drawn"], report.rejection["others"]
    assert (drawn.others, drawn.threshold) == (200, 0.4)
    assert others.others == rows["car/street"].images + rows["tree/street"].images
    answered = rows["drawn"].answered
    assert answered is not None
    assert answered[0] == pytest.approx(1 - drawn.rejected)
    assert set(report.answered) == {"cat", "dog"}
    assert 0.4 in [row.threshold for row in report.thresholds]
    text = str(report)
    assert "neither     drawn: " in text
    assert "left out of training" in next(line for line in text.splitlines() if "web" in line)
    document = report.to_dict()
    assert document["weights"] == str(file)
    assert [row["name"] for row in document["sources"]] == [one.name for one in report.sources]
    row = document["thresholds"][0]
    assert row["threshold"] == report.thresholds[0].threshold
    assert set(row["classes"]) == {"web", "phone"}
    assert set(row["negatives"]) == {"drawn", "car/street", "tree/street"}


def test_without_negatives_there_is_no_threshold(tmp_path: Path, sets: tuple[str, str]) -> None:
    data, other = sets
    file = weights(tmp_path / "w.pt", None)
    report = evaluate_weights(file, [data])
    assert (report.rejection, report.answered, report.thresholds) == ({}, {}, ())
    assert [one.answered for one in report.sources] == [None, None]
    assert sum(one.images for one in report.sources) == report.result.pictures < 20
    with pytest.raises(CatdogError, match="was trained without --other"):
        evaluate_weights(file, [data], [other])
    with pytest.raises(CatdogError, match="--plot needs --other"):
        evaluate_weights(file, [data], plot=tmp_path / "roc.png")


@pytest.mark.parametrize("left_out", [[], ["web"]])
def test_damaged_images_that_a_run_used_are_tested_on(
    tmp_path: Path, sets: tuple[str, str], left_out: list[str]
) -> None:
    data, other = sets
    for folder in (Path(data), Path(other)):
        for file in sorted(folder.rglob("*-[0-4].jpg")):
            whole = file.read_bytes()
            third = len(whole) // 3
            file.write_bytes(
                whole[: 2 * third] + bytes(third // 2) + whole[2 * third + third // 2 :]
            )
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    args = {"data": data, "other": [other], "leave_out": left_out}
    weights(run.weights, Rejection("known", 0.4), left_out=left_out)
    run.write_args(args)
    with pytest.raises(CatdogError, match="damaged: corrupt JPEG data"):
        evaluate_weights(run.folder)
    run.write_args(args | {"keep_damaged": True})
    own = evaluate_weights(run.folder)
    assert "car/street" in {one.name for one in own.sources}
    named = evaluate_weights(run.folder, [data], [other])
    assert named.to_dict() == own.to_dict()


@pytest.mark.parametrize("limit", [None, 40])
@pytest.mark.parametrize("left_out", [[], ["web"]])
def test_the_recorded_split_of_a_run_decides_what_is_tested(
    tmp_path: Path, sets: tuple[str, str], left_out: list[str], limit: int | None
) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    weights(run.weights, None, left_out=left_out)
    args = {"data": sets[0], "more_data": [sets[0]], "leave_out": left_out, "limit": limit}
    run.write_args(args)
    opened = run.datasets()
    before = {one.name: one.images for one in evaluate_weights(run.folder).sources}
    for number, one in enumerate(opened):
        trained = one.items_of("test")[0]  # since then files came, and it would be in test now
        items = [replace(item, split="train") if item == trained else item for item in one.items]
        replace(one, items=tuple(items)).write_split_csv(run.split_file(number))
    after = {one.name: one.images for one in evaluate_weights(run.folder).sources}
    assert sum(before.values()) - sum(after.values()) == 2
    assert all(after[name] == before[name] == 48 for name in left_out)


def test_of_several_sets_one_may_have_no_test_images(tmp_path: Path, sets: tuple[str, str]) -> None:
    file = weights(tmp_path / "w.pt", None)
    write(tmp_path / "few", {"cat/lamp-1.jpg": image(900), "dog/lamp-2.jpg": image(901)})
    with pytest.raises(CatdogError, match="the test split has no"):
        evaluate_weights(file, [str(tmp_path / "few")])
    with pytest.raises(CatdogError, match="there are no test images"):
        evaluate_weights(file, [str(tmp_path / "few")] * 2)
    alone = evaluate_weights(file, [sets[0]]).result.pictures
    both = evaluate_weights(file, [sets[0], str(tmp_path / "few")]).result.pictures
    assert alone <= both <= alone + 3


def test_sets_of_one_name_have_rows_of_their_own(tmp_path: Path, sets: tuple[str, str]) -> None:
    for place in "ab":
        for kind, source in zip(("images", "rest"), sets):
            for number, file in enumerate(sorted(Path(source).rglob("*.jpg"))):
                name = f"{file.parent.name}/{number}.jpg"
                write(tmp_path / place / kind, {name: file.read_bytes()})
    named = [[str(tmp_path / place / kind) for place in "ab"] for kind in ("images", "rest")]
    file = weights(tmp_path / "w.pt", Rejection("known", 0.4), left_out=["b/images", "b/rest"])
    rows = {one.name: one.left_out for one in evaluate_weights(file, *named).sources}
    held_back = {"a/images": False, "b/images": True, "drawn": False}
    held_back |= {
        f"{kind}/{place}/rest": place == "b" for kind in ("car", "tree") for place in "ab"
    }
    assert rows == held_back
    # Without the other sets of the training their names are the same.
    alone = evaluate_weights(file, *([sets[1]] for sets in named)).sources
    held_back = {name: flag for name, flag in held_back.items() if flag or name == "drawn"}
    assert {one.name: one.left_out for one in alone} == held_back
    assert alone[0].images == len(list(Path(named[0][1]).rglob("*.jpg")))


def source(name: str, share: float, left_out: bool = False) -> SourceResult:
    return SourceResult(name, 1000, left_out, (share, share, share), (0.5, 0.4, 0.6))


def test_a_threshold_has_the_mean_and_the_worst_source_of_each_kind() -> None:
    # A source of the classes and one of negatives have the same name, `car/a`.
    row = ThresholdRow(0.25, {"car/a": 1.0, "phone": 0.5}, {"car/a": 0.2, "car/b": 0.0})
    lines = evaluate._threshold_lines([row])
    assert lines[1].split() == ["threshold", "the", "classes", "car"]
    assert lines[2].split() == ["0.25", "75.0", "(50.0)", "10.0", "(20.0)"]


def test_thresholds_have_the_digits_in_which_they_differ() -> None:
    def shown(*thresholds: float) -> list[str]:
        table = [ThresholdRow(one, {"web": 1.0}, {}) for one in thresholds]
        return [line.split()[0] for line in evaluate._threshold_lines(table)[2:]]

    assert shown(0.498321, 0.498349, 0.5) == ["0.49832", "0.49835", "0.5"]
    assert shown(0.1234567, 0.5) == ["0.1235", "0.5"]
    assert len(set(shown(0.3, 0.1 + 0.2))) == 2


@pytest.mark.parametrize("classes", [8, 9])
def test_of_many_classes_the_least_answered_are_listed(classes: int) -> None:
    labels = tuple(f"c{number}" for number in range(classes))
    truth = np.arange(classes)
    result = classification_report.evaluate(np.eye(classes, dtype=np.float32), truth, labels)
    shares = {label: 1 - index / 100 for index, label in enumerate(labels)}
    report = EvaluationReport(Path("w.pt"), result, (source("web", 1),), answered=shares)
    (line,) = (line for line in str(report).splitlines() if line.startswith("answered    "))
    assert "top class right, %" not in str(report), "of one source there is nothing to compare"
    assert "top class right, %" in str(replace(report, sources=(source("web", 1),) * 2))
    worst = line.startswith(f"answered    worst of {classes} classes: c{classes - 1} 9")
    assert worst is (classes > 8)
    assert "source" not in str(report).splitlines(), "of one source there is no table"
