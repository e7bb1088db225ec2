"""`Classifier`: what a person who embeds it would notice."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.images.toy_frames import BLUE, GREY, RED, frame_of
from support.paths import DATA, TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError, Prediction
from catdog_edge.runtime.classifier import CHUNK, _few
from catdog_edge.runtime.model_file import shipped_models


@pytest.fixture(scope="module")
def pets() -> Classifier:
    return Classifier(TINY)


@pytest.fixture(params=["tiny", *shipped_models()])
def every(request: pytest.FixtureRequest) -> Classifier:
    """The toy model and every model that ships."""
    return Classifier(TINY if request.param == "tiny" else request.param, "cpu")


def test_answers_a_frame(pets: Classifier) -> None:
    answer = pets(RED)
    assert isinstance(answer, Prediction)
    assert answer.label == "cat"
    assert str(answer) == "cat 1.00"
    assert pets(BLUE).label == "dog"
    assert pets(GREY).confidence == pytest.approx(0.5, abs=1e-3)


def test_probabilities_follow_the_labels(every: Classifier) -> None:
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    values = every.probabilities([frame])
    answer = every(frame)
    assert values.dtype == np.float32
    assert values.shape == (1, len(every.spec.labels))
    assert answer.labels == every.spec.labels
    np.testing.assert_allclose(answer.probabilities, values[0], atol=1e-6)
    assert answer.confidence == pytest.approx(values.max())
    assert values.sum() == pytest.approx(1, abs=1e-4)


def test_grey_alpha_and_strided_frames_answer_like_plain_ones(every: Classifier) -> None:
    random = np.random.default_rng(1)
    wide = random.integers(0, 256, (60, 160, 3), dtype=np.uint8)
    strided = wide[::2, ::2]
    plain = np.ascontiguousarray(strided)
    alpha = np.dstack([plain, np.full(plain.shape[:2], 7, np.uint8)])
    grey = plain[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    values = every.probabilities([plain, strided, alpha, three, grey, grey[..., None]])
    np.testing.assert_allclose(values[1], values[0], atol=1e-5)
    np.testing.assert_allclose(values[2], values[0], atol=1e-5)
    np.testing.assert_allclose(values[4], values[3], atol=1e-5)
    np.testing.assert_allclose(values[5], values[3], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 3), (1080, 1920), (32, 32)])
def test_any_size_is_answered(pets: Classifier, size: tuple[int, int]) -> None:
    assert pets(frame_of(0, 0, 200, *size)).label == "cat"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (None, "NoneType"),
        ([[1, 2], [3, 4]], "list"),
        (RED.astype(np.float32), "float32"),
        (RED.astype(np.uint16), "uint16"),
        (np.zeros((0, 10, 3), np.uint8), r"\[0, 10, 3\]"),
        (np.zeros((10, 10, 2), np.uint8), r"\[10, 10, 2\]"),
        (np.zeros((4, 10, 10, 3), np.uint8), r"\[4, 10, 10, 3\]"),
        (np.zeros(9, np.uint8), r"\[9\]"),
    ],
)
def test_what_is_no_frame_is_a_value_error_that_says_what_came(
    pets: Classifier, frame: object, said: str
) -> None:
    with pytest.raises(ValueError, match=f"{said}.*expected uint8"):
        pets(frame)


def test_a_batch_of_different_sizes_answers_like_one_frame_after_the_other(
    every: Classifier,
) -> None:
    random = np.random.default_rng(2)
    shapes = [(20, 30, 3), (300, 40, 3), (32, 32), (50, 50, 4), (1, 1, 3)] * 9
    frames = [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    together = every.batch(iter(frames))
    assert len(together) == len(frames) == 45
    for answer, frame in zip(together, frames, strict=True):
        np.testing.assert_allclose(answer.probabilities, every(frame).probabilities, atol=2e-3)


def test_an_empty_batch_is_empty(pets: Classifier) -> None:
    assert pets.batch([]) == []
    assert pets.probabilities([]).shape == (0, 2)


def test_frames_in_one_array_are_those_of_a_list() -> None:
    height, width = (pets := Classifier(TINY, "cpu")).spec.size
    for shape in ((2 * CHUNK + 1, height, width, 3), (3, height, width, 4), (3, 40, 50, 3)):
        array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for frames in (array, array[::2], array[:, :, ::-1]):
            assert np.array_equal(pets.probabilities(frames), pets.probabilities([*frames]))
            assert pets.batch(frames) == pets.batch([*frames])


def test_one_frame_given_as_a_batch_is_an_error(pets: Classifier) -> None:
    with pytest.raises(ValueError, match="several frames"):
        pets.batch(RED)
    with pytest.raises(ValueError, match=r"frame 1: .*float64"):
        pets.batch([RED, RED.astype(float)])
    # Several frames in one array are none of this.
    assert [answer.label for answer in pets.batch(np.stack([RED, BLUE]))] == ["cat", "dog"]
    assert pets.probabilities(np.zeros((0, 9, 9, 3), np.uint8)).shape == (0, 2)


@pytest.mark.parametrize(
    ("frames", "said"),
    [(None, "NoneType"), (7, "int"), ("cat.jpg", "str"), (b"cat", "bytes"), (object(), "object")],
)
def test_what_is_not_several_frames_is_a_value_error(
    pets: Classifier, frames: object, said: str
) -> None:
    for ask in (pets.batch, pets.probabilities):
        with pytest.raises(ValueError, match=f"expected several frames, .* got {said}$"):
            ask(frames)  # type: ignore[operator]


def test_what_is_no_model_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"a model is the path .*, got int 123$"):
        Classifier(123)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"no model fast: neither a file nor a shipped model"):
        Classifier(Path("fast"))


def test_a_long_batch_runs_in_chunks(pets: Classifier) -> None:
    frames = [RED, BLUE] * 40
    assert [answer.label for answer in pets.batch(frames)] == ["cat", "dog"] * 40
    assert pets.probabilities(frames).shape == (80, 2)


def test_a_model_comes_as_path_text_or_bytes() -> None:
    answers = {
        Classifier(model)(frame_of(40, 60, 50)).probabilities
        for model in (TINY, str(TINY), TINY.read_bytes())
    }
    assert len(answers) == 1
    assert Classifier(TINY).path == TINY.absolute()
    assert Classifier(TINY.read_bytes()).path is None


def test_the_default_is_the_shipped_model() -> None:
    if "fast" in shipped_models():
        assert Classifier(provider="cpu").path.name == "fast.onnx"
    else:
        with pytest.raises(ModelError, match="no model fast"):
            Classifier()


@pytest.mark.slow
def test_several_threads_get_their_own_answers(every: Classifier) -> None:
    random = np.random.default_rng(3)
    frames = [random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(8)]
    expected = [every(frame).probabilities for frame in frames]

    def work(index: int) -> float:
        frame = frames[index % len(frames)]
        got = every(frame) if index % 3 else every.batch([frame, frame])[1]
        return max(
            abs(a - b)
            for a, b in zip(got.probabilities, expected[index % len(frames)], strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        worst = max(pool.map(work, range(400)))
    assert worst < 2e-3


def test_warmup_runs_the_session() -> None:
    pets = Classifier(TINY, "cpu")
    calls: list[int] = []
    session = pets._session._session

    class Recorder:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            calls.append(len(feeds["frames"]))
            return session.run(outputs, feeds)

    pets._session._session = Recorder()
    pets.warmup(calls=2, batch=3)
    assert calls == [3, 3]


def test_repr_tells_the_truth() -> None:
    text = repr(Classifier(TINY, provider="cpu", threads=1))
    for part in (str(TINY), "tiny fp32 32x32", "['cat', 'dog']", "'cpu'", "threads=1"):
        assert part in text


def test_numpy_scalars_are_numbers() -> None:
    pets = Classifier(TINY, "cpu", np.int64(1), np.float32(0.9), spin=np.int32(200))  # type: ignore[arg-type]
    assert pets(GREY).label == "neither"
    assert pickle.loads(pickle.dumps(pets))(GREY).label == "neither"
    rejecting = DATA / "tiny_rejecting.onnx"
    assert Classifier(rejecting, "cpu", reject=np.False_, spin=np.False_).reject is None  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reject must be"):
        Classifier(TINY, reject=np.True_)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spin must be"):
        Classifier(TINY, spin=np.float64(0.5))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["spec", "path", "provider", "reason", "threads", "reject"])
def test_what_it_is_made_with_cannot_be_changed(pets: Classifier, name: str) -> None:
    before = getattr(pets, name)
    with pytest.raises(AttributeError):
        setattr(pets, name, 0.5)
    assert getattr(pets, name) == before


def test_many_labels_are_not_all_in_the_repr() -> None:
    assert _few(["a", "b"]) == "['a', 'b']"
    text = _few([f"class {index}" for index in range(1000)])
    assert text == "['class 0', 'class 1', 'class 2', 'class 3', 'class 4', ... 1000 in all]"
