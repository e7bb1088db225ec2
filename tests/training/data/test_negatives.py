"""Pictures of none of the classes, from `--other` to `neither` on the device."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = pytest.mark.train

import onnxruntime
from click.testing import CliRunner, Result
from support.images.image_sets import assert_looks, looked

from catdog_edge import Classifier
from catdog_edge.cli.main import main
from catdog_edge.errors import CatdogError, DataError
from catdog_edge.spec import NEITHER, squash
from catdog_edge.training.data.negatives import (
    DRAWN_COUNT,
    Choice,
    NegativeSampler,
    _grown,
    draw_empty_scene,
    drawn_negatives,
    negatives_split,
    open_negatives,
)
from catdog_edge.training.data.open_dataset import open_negative_images, pixels
from catdog_edge.training.engine.batches.loader import BatchLoader
from catdog_edge.training.engine.trainer import Trainer
from catdog_edge.training.evaluation.inference import EvaluatedModel
from catdog_edge.training.evaluation.rejection import auroc, evaluate_threshold
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs.run_folder import Run

STEPS = squash(48, 48)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of neither lamp: grey noise of middling light, in a nested folder."""
    folder = tmp_path_factory.mktemp("others") / "streets"
    rng = np.random.default_rng(2)
    (folder / "deep").mkdir(parents=True)
    for number in range(60):
        stripes = np.indices((40, 48)).sum(0)[..., None] // 6 % 2 * 120 + 60
        picture = np.clip(stripes + rng.normal(0, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "deep" / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def run(easy_set: Path, streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the lamps and the stripes, exported in float32 and static int8."""
    root = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CATDOG_CACHE", str(root / "cache"))
        trained = call(
            "train", "--data", easy_set, "--other", streets, "--name", "lamps", "--size", 48,
            "--arch", "edge_cnn", "--epochs", 14, "--batch-size", 16, "--precision", "float32",
        )  # fmt: skip
        assert trained.exit_code == 0, trained.output
        assert "neither   others:" in trained.output
        exported = call(
            "export", "--quantize", "static", "--calibration-pictures", 32, "--keep-slower",
            "--max-drop", 100,
        )  # fmt: skip
        assert exported.exit_code in (0, 3), exported.output
    return root / "runs" / "lamps"


def test_every_picture_of_a_folder_counts_and_most_are_to_train_on(streets: Path) -> None:
    dataset = open_negative_images(streets)
    counts = {split: n[NEITHER] for split, n in dataset.counts().items()}
    assert sum(counts.values()) == 60
    assert counts["train"] > counts["test"] > 0
    assert counts["train"] > counts["val"] > 0


def test_folders_that_name_splits_are_the_splits(tmp_path: Path, streets: Path) -> None:
    for number, file in enumerate(sorted((streets / "deep").iterdir())):
        copy = tmp_path / ("train", "test")[number % 3 == 0] / "street" / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    found = open_negative_images(tmp_path)
    tested = {item.file for item in found.items_of("test")}
    assert tested == {item.file for item in found.items if item.file.startswith("test/")}
    assert (len(tested), len(found.items)) == (20, 60)
    assert found.items_of("val")


def test_an_empty_folder_and_too_few_pictures_are_one_line(tmp_path: Path, streets: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        open_negative_images(tmp_path)
    (tmp_path / "one.png").write_bytes((streets / "deep/1.png").read_bytes())
    with pytest.raises(DataError, match="has no 'neither'"):
        open_negative_images(tmp_path)
    with pytest.raises(DataError, match="there is no folder or zip"):
        open_negative_images(tmp_path / "absent")


def test_drawings_of_nothing_are_many_kinds_and_repeat_with_their_seed() -> None:
    first, again = drawn_negatives(STEPS), drawn_negatives(STEPS)
    assert first.shape == (200, 48, 48, 3)
    assert np.array_equal(first[7], draw_empty_scene(48, 48, np.random.default_rng([20_000, 7])))
    assert np.array_equal(first, again)
    assert len(np.unique(first.reshape(DRAWN_COUNT, -1), axis=0)) == DRAWN_COUNT
    assert first.mean(axis=(1, 2, 3)).std() > 30, "all of one light"
    wide = draw_empty_scene(30, 90, np.random.default_rng(1))
    assert wide.shape == (30, 90, 3)
    assert wide.dtype == np.uint8


@pytest.mark.parametrize("processes", [1, 2])
def test_others_join_each_batch_with_a_label_of_their_own(processes: int) -> None:
    pixels = np.zeros((20, 8, 8, 3), np.uint8)
    others = NegativeSampler(np.full((4, 8, 8, 3), 200, np.uint8), label=2, share=0.4)
    seen = []
    for rank in range(processes):
        loader = BatchLoader(
            pixels, np.arange(20) % 2, batch_size=10, policy="none", seed=3,
            rank=rank, processes=processes, negatives=others,
        )  # fmt: skip
        seen += [batch.labels for batch in loader.epoch(0)]
    labels = torch.cat(seen)
    assert int((labels == 2).sum()) == 2 * 4, "four others for ten pictures, in two batches"
    assert int((labels < 2).sum()) == 20


def background(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    none = np.zeros((0, *picture.shape), np.uint8)
    return NegativeSampler(none, 2, 0.4, picture[None], backgrounds=1.0).draw(generator)


def test_a_background_is_made_of_a_corner_and_shows_nothing_of_the_middle() -> None:
    picture = np.full((40, 60, 3), 90, np.uint8)
    picture[10:30, 15:45] = 250
    seen = {background(picture, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert seen == {np.full((40, 60, 3), 90, np.uint8).tobytes()}
    corners = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    made = [background(corners, np.random.default_rng(seed)) for seed in range(20)]
    assert len({one.tobytes() for one in made}) == 20
    assert np.array_equal(made[3], background(corners, np.random.default_rng(3)))


def test_as_many_backgrounds_as_the_recipe_says() -> None:
    others = NegativeSampler(
        np.full((4, 8, 8, 3), 200, np.uint8), 2, 0.4,
        images=np.full((5, 8, 8, 3), 77, np.uint8), backgrounds=0.5,
    )  # fmt: skip
    drawn = [others.draw(np.random.default_rng(seed)) for seed in range(400)]
    assert 0.4 < np.mean([bool((one == 77).all()) for one in drawn]) < 0.6
    none = NegativeSampler(others.photographs, 2, 0.4, others.images)
    drawn = [none.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert not any((one == 77).all() for one in drawn)


def test_half_of_the_photographs_are_shown_in_parts() -> None:
    ramp = np.zeros((40, 40, 3), np.uint8)
    ramp[..., 1] = np.arange(40)[:, None] * 3
    ramp[..., 2] = np.arange(40)[None, :] * 3
    others = NegativeSampler(ramp[None], 2, 0.4)
    drawn = [others.draw(np.random.default_rng(seed)) for seed in range(600)]
    # A drawing has a blue of its own; what was cut out of the ramp has none.
    photographs = [one for one in drawn if not one[..., 0].any() and one.any()]
    assert 0.5 < len(photographs) / len(drawn) < 0.7
    parts = [one for one in photographs if not np.array_equal(one, ramp)]
    assert 0.4 < len(parts) / len(photographs) < 0.6
    spans = np.array([[np.ptp(one[..., 1]), np.ptp(one[..., 2])] for one in parts]) / np.ptp(ramp)
    assert spans.min() > 0.15  # a quarter of a side, less what its pixels span
    assert spans.max() < 0.85
    assert len({one.tobytes() for one in parts}) == len(parts)


def test_the_report_counts() -> None:
    scores = np.linspace(0.01, 1, 100, dtype=np.float32)
    found = evaluate_threshold(scores, np.array([0.001, 0.02, 0.5], np.float32), scores[5])
    assert found.rejected == pytest.approx(2 / 3)
    assert (found.kept, found.others) == (pytest.approx(0.95), 3)
    assert auroc(np.array([0.9, 0.8]), np.array([0.1, 0.85])) == pytest.approx(0.75)
    assert auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5


@pytest.mark.slow
def test_a_run_with_others_carries_its_threshold(run: Path) -> None:
    network, spec = load_checkpoint(run / "best.pt")
    assert spec.rejection is not None
    assert spec.rejection.score == "known"
    assert spec.rejection.threshold == 0.5  # the score is spread around it
    assert spec.trained_on["other"] == "streets"
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 48, 48)).shape == (1, 3)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["rejection"]["others"]["rejected"] > 0.9
    assert summary["rejection"]["others"]["kept"] >= 0.9


@pytest.mark.slow
def test_eval_reports_on_the_half_that_nothing_was_chosen_by(
    run: Path, streets: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parents[1])
    answer = call("eval", "--json")
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    expected = open_negative_images(streets).counts()["test"][NEITHER]
    assert document["rejection"]["others"]["others"] == expected
    assert document["rejection"]["others"]["rejected"] > 0.9
    assert document["rejection"]["drawn"]["others"] == DRAWN_COUNT
    model, dataset = EvaluatedModel(run / "best.pt"), Run(run).datasets()[0]
    assert model.spec.rejection is not None
    pictures, truth, _ = pixels(dataset, "test", model.spec.resize)
    answered = model.scores(pictures) >= model.spec.rejection.threshold
    shares = {name: answered[truth == n].mean() for n, name in enumerate(model.spec.labels)}
    assert document["answered"] == pytest.approx(shares, abs=1e-6)
    assert "answered    " in call("eval").stdout
    of_the_file = call(
        "eval", "--weights", run / "model.onnx", "--data", easy_set, "--other", streets, "--json"
    )
    assert of_the_file.exit_code == 0, of_the_file.output
    again = json.loads(of_the_file.stdout)["rejection"]["others"]
    assert again["rejected"] == document["rejection"]["others"]["rejected"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.onnx", "model.static.onnx"])
def test_the_exported_file_says_neither(run: Path, streets: Path, file: str) -> None:
    session = onnxruntime.InferenceSession(str(run / file))
    assert [value.name for value in session.get_outputs()] == ["probabilities", "known"]
    pets = Classifier(run / file)
    assert pets.spec.rejection is not None
    other_set = open_negatives([str(streets)], pets.spec.resize)
    assert other_set is not None
    stripes = other_set.photographs("test")
    labels = [answer.label for answer in pets.batch(stripes)]
    assert labels.count(NEITHER) > 0.9 * len(labels)
    assert all(answer.label != NEITHER for answer in pets.batch(stripes[:3])) is False
    with Classifier(run / file, reject=False) as never:
        assert NEITHER not in [answer.label for answer in never.batch(stripes)]
    scores = pets.scores(stripes)
    reference = EvaluatedModel(run / "best.pt").scores(stripes)
    assert scores.shape == (len(stripes),)
    assert np.abs(scores - reference).max() < (1e-4 if file == "model.onnx" else 0.2)


@pytest.mark.slow
def test_a_file_whose_scores_are_wrong_is_refused(run: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(run / "model.onnx")
    [total] = [node for node in model.graph.node if "known" in node.output]
    total.output[0] = "known.right"
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["known.right"], ["known"]))
    onnx.save(model, tmp_path / "wrong.onnx")
    answer = call("verify", run / "best.pt", tmp_path / "wrong.onnx")
    assert answer.exit_code == 3, answer.output
    assert "the scores of the output known differ" in answer.output


@pytest.mark.slow
def test_a_model_without_a_threshold_is_not_measured_by_one(
    easy_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = call(
        "train", "--data", easy_set, "--size", 32, "--epochs", 1, "--batch-size", 16,
        "--precision", "float32", "--arch", "edge_cnn",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    answer = call("eval", "--other", "drawn")
    assert answer.exit_code == 1
    assert "trained without --other" in answer.output


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_others(
    easy_set: Path, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ("--data", easy_set, "--other", streets, "--size", 32, "--batch-size", 16,
                "--precision", "float32", "--epochs", 3, "--arch", "edge_cnn")  # fmt: skip
    assert call("train", "--name", "whole", *settings).exit_code == 0
    close_epoch = Trainer._close_epoch

    def killed(trainer: Trainer) -> None:
        close_epoch(trainer)
        raise CatdogError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_close_epoch", killed)
        assert call("train", "--name", "cut", *settings).exit_code == 1
    again = call("train", "--resume", "--name", "cut")
    assert again.exit_code == 0, again.output
    tables, rejections = [], []
    for run in ("whole", "cut"):
        with (tmp_path / "runs" / run / "results.csv").open(newline="") as stream:
            tables.append([(row["train_loss"], row["val_loss"]) for row in csv.DictReader(stream)])
        rejections.append(load_checkpoint(tmp_path / "runs" / run / "best.pt")[1].rejection)
    assert len(tables[0]) == 3
    assert tables[0] == tables[1]
    assert rejections[0] == rejections[1] is not None


SCENES = looked(
    "514b453d726f6b678e8b87844c545e6be7d4d4f2daa7cee3b38fc7d9909abbcc"
    "1a1a3e2e1a1a6b455b627578797382958e8e8d8c848281809cb1c2d0b2c9dce9"
    "492d180f7553190f71758a727b8aa17cbbbfcfccc3bfcad4c3cbcad4c2cad2d6"
    "2e2331242928272729233a352a3b3f2c587291b36768738dc79c7965d5b08e6f"
    "b3997c6d9b9282867d7171bb887992c73220262811183a1a48335b2e3e441c1c"
    "3f428f534f5781699ca1a294d7d6d29f7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e"
    "99918f84928984789087786e84796e5e5c73837a93a0a6e6b79177a6be926e67"
    "e2e6eaecdce1e6e9d6dbe0e5ced4dadf5158847740474f56817b7775d6c0b1a3"
    "9c97937e9e8d9884b698b4a1787c6b9549545b625862665669745d8c82a52079"
    "838f85766e84b160575385491d2027326767696b606063625a5a5b5d54555758"
)


def test_a_seed_draws_the_same_scene_as_ever() -> None:
    scenes = [draw_empty_scene(48, 64, np.random.default_rng(seed)) for seed in range(20)]
    assert_looks(scenes, SCENES)


CHOICES = {  # kind, image, top, left, height, width and times; of photographs that are too small
    (40, 60): "p 1 0 9 26 42 1, p 0 0 0 0 0 1, b 0 0 0 8 7 2, b 1 32 49 8 11 1, p 4 18 21 22 26 1, "
    "p 2 15 19 11 26 1, p 4 4 11 29 33 1, p 2 19 18 16 41 1, b 2 0 47 6 13 4, p 0 0 0 0 0 1, "
    "p 3 17 17 20 19 1, b 7 33 0 7 6 2, b 8 35 52 5 8 4, p 0 24 10 11 43 1",
    (3, 3): "p 1 0 1 1 2 1, p 0 0 0 0 0 1, b 0 0 0 2 2 2, b 1 1 1 2 2 1, p 4 2 1 1 1 1, "
    "p 2 1 1 1 1 1, p 4 0 1 2 1 1, p 2 2 1 1 2 1, b 2 0 1 2 2 4, p 0 0 0 0 0 1, p 3 2 1 1 1 1, "
    "b 7 1 0 2 2 2, b 8 1 1 2 2 4, p 0 2 1 1 2 1",
}


@pytest.mark.parametrize("sides", CHOICES)
def test_a_seed_chooses_the_same_negatives_as_ever(sides: tuple[int, int]) -> None:
    photographs, images = (np.zeros((count, *sides, 3), np.uint8) for count in (5, 9))
    sampler = NegativeSampler(photographs, 2, 0.4, images, backgrounds=0.4, drawn=0.2)
    chosen = [sampler.choose(np.random.default_rng(seed)) for seed in range(14)]
    found = [" ".join(map(str, (kind[0], *numbers))) for kind, *numbers in chosen]
    assert ", ".join(found) == CHOICES[sides]


def test_a_part_is_mirrored_side_by_side_and_enlarged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    part = picture[5:13, 20:26]
    assert _grown(picture, Choice("photograph", 0)) is picture
    row = np.concatenate([part, part[:, ::-1], part], 1)
    tile = np.concatenate([row, row[::-1], row])
    for times in (1, 2, 3):
        made = _grown(picture, Choice("background", 0, 5, 20, 8, 6, times))
        wanted = tile[: times * 8, : times * 6]
        assert np.array_equal(made, cv2.resize(wanted, (60, 40), interpolation=cv2.INTER_CUBIC))


def test_a_photograph_is_chosen_by_its_share() -> None:
    photographs = np.zeros((3, 8, 8, 3), np.uint8)
    uneven = NegativeSampler(photographs, 2, 0.4, drawn=0.0, shares=np.array([0.2, 0.8, 0.0]))
    chosen = [uneven.choose(np.random.default_rng(seed)).image for seed in range(400)]
    assert set(chosen) == {0, 1}
    assert np.mean(chosen) == pytest.approx(0.8, abs=0.06)
    rounded = NegativeSampler(photographs, 2, 0.4, drawn=0.0, shares=np.array([0.0, 0.0, 0.5]))
    chosen = [rounded.choose(np.random.default_rng(seed)).image for seed in range(40)]
    assert set(chosen) == {2}, "sums of shares may end below 1"


def test_models_of_earlier_versions_had_half_of_the_negatives_to_test() -> None:
    assert negatives_split({}) == (0.4, 0.1, 0.5)
    assert negatives_split({"other_split": [0.6, 0.2, 0.2]}) == (0.6, 0.2, 0.2)
