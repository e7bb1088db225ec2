"""`Classifier`: what a person who embeds it would notice."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError, Prediction
from catdog_edge.modelfile import shipped_models

DATA = Path(__file__).parent / "data"
TINY = DATA / "tiny.onnx"


def frame_of(blue: int, green: int, red: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (blue, green, red), np.uint8)


RED, BLUE, GREY = frame_of(0, 0, 200), frame_of(200, 0, 0), frame_of(128, 128, 128)


@pytest.fixture(scope="module")
def pets() -> Classifier:
    return Classifier(TINY)


@pytest.fixture(params=["tiny", *shipped_models()])
def every(request: pytest.FixtureRequest) -> Classifier:
    """The toy model and every model that ships."""
    return Classifier(TINY if request.param == "tiny" else request.param)


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
    with pytest.raises(ValueError, match=f"{said}.*wanted uint8"):
        pets(frame)


def test_a_frame_of_the_models_size_reaches_the_session_without_a_copy() -> None:
    pets = Classifier(TINY)
    seen: list[np.ndarray] = []
    session = pets._session

    class Recorder:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.extend(feeds.values())
            return session.run(outputs, feeds)

    pets._session = Recorder()
    frame = frame_of(0, 0, 200, *pets.spec.size)
    assert pets(frame).label == "cat"
    assert len(seen) == 1
    assert seen[0].dtype == np.uint8
    assert np.shares_memory(seen[0], frame)
    # A batch that is one array already is cut into frames and stacked: same values.
    pets.probabilities(frame[None])
    assert np.shares_memory(seen[1], frame)


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


def test_one_frame_given_as_a_batch_is_an_error(pets: Classifier) -> None:
    with pytest.raises(ValueError, match="several frames"):
        pets.batch(RED)
    with pytest.raises(ValueError, match=r"frame 1: .*float64"):
        pets.batch([RED, RED.astype(float)])


def test_a_fixed_batch_is_filled_up() -> None:
    fixed, free = Classifier(DATA / "tiny_batch4.onnx"), Classifier(TINY)
    frames = [RED, BLUE, GREY, BLUE, RED, frame_of(10, 20, 30)]
    np.testing.assert_allclose(fixed.probabilities(frames), free.probabilities(frames), atol=1e-6)
    assert fixed(BLUE).label == "dog"


def test_the_classical_layout_answers_the_same() -> None:
    classical, ours = Classifier(DATA / "tiny_float.onnx"), Classifier(TINY)
    frames = [RED, BLUE, frame_of(90, 20, 120)]
    np.testing.assert_allclose(
        classical.probabilities(frames), ours.probabilities(frames), atol=1e-5
    )


def test_rejection_follows_the_spec_and_the_argument() -> None:
    rejecting = DATA / "tiny_rejecting.onnx"
    assert Classifier(rejecting)(GREY).label == "neither"
    assert Classifier(rejecting)(RED).label == "cat"
    assert Classifier(rejecting, reject=False)(GREY).label in ("cat", "dog")
    assert Classifier(rejecting, reject=0)(GREY).label in ("cat", "dog")
    assert Classifier(rejecting, reject=0.4)(GREY).label in ("cat", "dog")
    assert Classifier(TINY, reject=0.9)(GREY).label == "neither"
    assert Classifier(TINY)(GREY).label in ("cat", "dog")


def test_rejection_by_an_output_of_its_own() -> None:
    known = Classifier(DATA / "tiny_known.onnx")
    answers = known.batch([GREY, RED, GREY, BLUE, *[GREY] * 40])
    assert [answer.label for answer in answers] == ["neither", "cat", "neither", "dog"] + [
        "neither"
    ] * 40
    assert answers[0].confidence == pytest.approx(0.5, abs=1e-3)
    # A little colour: the class is sure enough, the other output is what decides.
    faint = frame_of(120, 128, 136)
    assert Classifier(DATA / "tiny_known.onnx", reject=0.3)(faint).label == "cat"
    assert Classifier(DATA / "tiny_known.onnx", reject=0.9)(faint).label == "neither"


@pytest.mark.parametrize("reject", [True, -0.1, 1.1, "0.5", float("nan")])
def test_a_wrong_rejection_is_a_value_error(reject: object) -> None:
    with pytest.raises(ValueError, match="reject must be"):
        Classifier(TINY, reject=reject)  # type: ignore[arg-type]


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
        assert Classifier().path.name == "fast.onnx"
    else:
        with pytest.raises(ModelError, match="no model fast"):
            Classifier()


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


def test_it_travels_by_pickle() -> None:
    for model in (TINY, TINY.read_bytes()):
        before = Classifier(model, provider="cpu", threads=1, reject=0.9, spin=False)
        after = pickle.loads(pickle.dumps(before))
        assert after(RED) == before(RED)
        assert (after.path, after.threads, after.reject, after.provider) == (
            before.path,
            1,
            before.reject,
            "cpu",
        )
        assert repr(after) == repr(before)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_answers_too_with_all_threads() -> None:
    program = textwrap.dedent(f"""
        import os, signal
        import numpy as np
        from catdog_edge import Classifier
        pets = Classifier({str(TINY)!r}, threads=2)
        frame = np.full((40, 40, 3), (0, 0, 200), np.uint8)
        here = pets(frame)
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs is ended, and seen
            same = pets(frame) == here
            tasks = "/proc/self/task"  # a forked session has one thread left, whatever it says
            threads = len(os.listdir(tasks)) if os.path.isdir(tasks) else 2
            os._exit(0 if same and threads >= 2 else 7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pets(frame) == here)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_a_closed_one_says_so() -> None:
    with Classifier(TINY) as pets:
        assert pets(RED).label == "cat"
    with pytest.raises(ModelError, match="closed"):
        pets(RED)
    assert "closed" in repr(pets)


def test_warmup_runs_the_session() -> None:
    pets = Classifier(TINY)
    calls: list[int] = []
    session = pets._session

    class Recorder:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            calls.append(len(feeds["frames"]))
            return session.run(outputs, feeds)

    pets._session = Recorder()
    pets.warmup(calls=2, batch=3)
    assert calls == [3, 3]


def test_repr_tells_the_truth() -> None:
    text = repr(Classifier(TINY, provider="cpu", threads=1))
    for part in (str(TINY), "tiny fp32 32x32", "['cat', 'dog']", "'cpu'", "threads=1"):
        assert part in text


def test_memory_stays_where_it_was(pets: Classifier) -> None:
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs Linux's /proc")

    def pages() -> int:
        return int(status.read_text().split()[1])

    frame = frame_of(1, 2, 3)
    for _ in range(500):
        pets(frame)
    before = pages()
    for _ in range(5000):
        pets(frame)
        pets.probabilities([frame, frame])
    # 10,000 runs; one leaked result of 8 bytes plus its objects each would be over 1 MB.
    assert (pages() - before) * 4096 < 1_000_000
