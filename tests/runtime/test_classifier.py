"""`Classifier`: what a person who embeds it would notice."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import DATA

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

import catdog_edge
from catdog_edge import Classifier, ModelError, Prediction
from catdog_edge.runtime.classifier import _OWN, _few
from catdog_edge.runtime.io_binding import BoundRunner
from catdog_edge.runtime.model_file import ZOO, shipped_models

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
    with pytest.raises(ValueError, match=f"{said}.*wanted uint8"):
        pets(frame)


def test_a_frame_of_the_models_size_reaches_the_session_without_a_copy() -> None:
    pets = Classifier(TINY)
    seen: list[np.ndarray] = []
    session = pets._session._session

    class Recorder:
        def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.extend(feeds.values())
            return session.run(outputs, feeds)

    pets._session._session = Recorder()
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
        with pytest.raises(ValueError, match=f"wanted several frames, .* got {said}$"):
            ask(frames)  # type: ignore[operator]


def test_what_is_no_model_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"a model is the path .*, got int 123$"):
        Classifier(123)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"no model fast: .* given as a string"):
        Classifier(Path("fast"))


def test_a_fixed_batch_is_filled_up() -> None:
    fixed, free = Classifier(DATA / "tiny_batch4.onnx", "cpu"), Classifier(TINY, "cpu")
    frames = [RED, BLUE, GREY, BLUE, RED, frame_of(10, 20, 30)]
    np.testing.assert_allclose(fixed.probabilities(frames), free.probabilities(frames), atol=1e-6)
    assert fixed(BLUE).label == "dog"


def test_the_classical_layout_answers_the_same() -> None:
    classical, ours = Classifier(DATA / "tiny_float.onnx"), Classifier(TINY)
    frames = [RED, BLUE, frame_of(90, 20, 120)]
    np.testing.assert_allclose(
        classical.probabilities(frames), ours.probabilities(frames), atol=1e-5
    )


def test_scores_are_the_largest_probability_or_an_output_of_their_own() -> None:
    frames = [RED, BLUE, GREY, frame_of(120, 128, 136)]
    plain = Classifier(TINY)
    scores = plain.scores(frames)
    assert (scores.shape, scores.dtype) == ((4,), np.float32)
    np.testing.assert_array_equal(scores, plain.probabilities(frames).max(axis=1))
    assert [answer.confidence for answer in plain.batch(frames)] == scores.tolist()
    assert plain.scores([]).shape == (0,)
    known = Classifier(DATA / "tiny_known.onnx")
    red, grey = known.scores([RED, GREY])
    assert red > 0.9 > grey
    assert grey != known.probabilities([GREY]).max()


def test_a_long_batch_runs_in_chunks(pets: Classifier) -> None:
    frames = [RED, BLUE] * 40
    assert [answer.label for answer in pets.batch(frames)] == ["cat", "dog"] * 40
    assert pets.probabilities(frames).shape == (80, 2)


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


@pytest.mark.parametrize("model", [None, "fast"])
def test_a_shipped_model_travels_by_its_name(model: str | None, tmp_path: Path) -> None:
    before = Classifier(model, provider="cpu", threads=1)
    assert before.path is not None
    parcel = pickle.dumps(before)
    assert os.fsencode(before.path.parent) not in parcel
    assert len(parcel) < 1000
    # The package of the machine where it arrives lies elsewhere.
    package = Path(catdog_edge.__file__).parent
    leave_out = shutil.ignore_patterns("training", "__pycache__")
    shutil.copytree(package, tmp_path / "catdog_edge", ignore=leave_out)
    (tmp_path / "parcel").write_bytes(parcel)
    program = textwrap.dedent("""
        import pickle
        import numpy as np
        pets = pickle.load(open("parcel", "rb"))
        print(pets.path, pets(np.full((48, 64, 3), (0, 0, 200), np.uint8)).probabilities)
    """)
    done = fresh(program, tmp_path)
    assert done.returncode == 0, done.stderr
    over_there = tmp_path / "catdog_edge" / "zoo" / before.path.name
    assert done.stdout.strip() == f"{over_there} {before(RED).probabilities}"
    # A package that lacks the model says so.
    over_there.rename(over_there.with_stem("other"))
    done = fresh(program, tmp_path)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("catdog_edge.errors.ModelError: this classifier travelled by the name")
    assert "fast" in said


def test_a_model_of_ones_own_travels_by_path_or_by_bytes(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(TINY.read_bytes())
    by_path = pickle.dumps(Classifier(file, "cpu"))
    by_bytes = pickle.dumps(Classifier(file.read_bytes(), "cpu"))
    assert len(by_path) < 1000 < len(by_bytes)
    # A path stays a path, also that of a shipped model.
    shipped = Classifier(ZOO / "fast.onnx", "cpu")
    assert os.fsencode(ZOO / "fast.onnx") in pickle.dumps(shipped)
    file.unlink()
    assert pickle.loads(by_bytes)(RED).label == "cat"
    with pytest.raises(ModelError) as caught:
        pickle.loads(by_path)
    assert f"by the path of its model, {file}, and no such file is here" in str(caught.value)
    assert "\n" not in str(caught.value)


def fresh(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter that finds packages in `folder` first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment = {name: value for name, value in environment.items() if name != "CI"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env=environment,
    )


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(0)",
        "ask(); sys.exit(0)",
        "pets.close(); sys.exit(0)",
        "ask(); pets.close(); sys.exit(0)",
        "del pets; sys.exit(0)",
        "other = pickle.loads(pickle.dumps(pets)); assert other(frame) == here; sys.exit(0)",
    ],
)
def test_a_forked_child_ends_as_it_likes(body: str, tmp_path: Path) -> None:
    """It neither waits for threads that did not come along nor prints a word."""
    program = textwrap.dedent(f"""
        import os, pickle, signal, sys, warnings
        import numpy as np
        from catdog_edge import Classifier
        warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork itself, Python 3.12
        pets = Classifier({str(TINY)!r}, "cpu", threads=2)
        frame = np.full((1080, 1920, 3), (0, 0, 200), np.uint8)
        here = pets(frame)
        def ask():
            assert pets(frame) == here
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that hangs is ended, and seen
            {body}
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pets(frame) == here)
    """)
    done = fresh(program, tmp_path)
    assert done.stdout.split() == ["0", "True"], done.stderr
    assert not done.stderr


@needs_fork
@pytest.mark.parametrize("asked", [True, False], ids=["the child asked", "the child did not ask"])
def test_a_child_of_a_forked_child_answers(asked: bool, tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import multiprocessing, threading
        import numpy as np
        from catdog_edge import Classifier
        forking = multiprocessing.get_context("fork")
        pets = Classifier({str(TINY)!r}, "cpu", threads=2)
        frame = np.full((1080, 1920, 3), (0, 0, 200), np.uint8)
        here = pets(frame)
        def grandchild(told):
            told.put(("grandchild", pets(frame) == here))
        def child(told):
            # A lock that is held while forking must not stop the grandchild.
            with pets._session._lock:
                if {asked}:
                    told.put(("child", pets(frame) == here))
                process = forking.Process(target=grandchild, args=(told,))
                process.start()
            process.join(30)
            told.put(("exit", process.exitcode))
        told = forking.Queue()
        process = forking.Process(target=child, args=(told,))
        process.start()
        process.join(40)
        print(process.exitcode, [told.get(timeout=5) for _ in range({2 + asked})])
    """)
    done = fresh(program, tmp_path)
    answers = [("child", True)] * asked + [("grandchild", True), ("exit", 0)]
    assert done.stdout.strip() == f"0 {answers}", done.stderr
    assert not done.stderr


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """From 1.29 on, ONNX Runtime starts threads and keeps an identifier for its reports."""
    program = textwrap.dedent(f"""
        import os, sys
        os.environ["HOME"] = os.getcwd()
        os.environ.pop("XDG_CACHE_HOME", None)
        import cv2, numpy as np
        def threads():
            tasks = "/proc/self/task"
            return len(os.listdir(tasks)) if os.path.isdir(tasks) else 1
        theirs = threads()  # NumPy and OpenCV have some of their own
        from catdog_edge import Classifier
        pets = Classifier({str(TINY)!r}, "cpu", threads=1, spin=False)
        pets(np.zeros((8, 8, 3), np.uint8))
        print(threads() - theirs)
        print([file for _, _, files in os.walk(".") for file in files])
    """)
    done = fresh(program, tmp_path)
    assert done.stdout.split() == ["0", "[]"], done.stderr


@needs_fork
def test_a_forked_child_answers_too_with_all_threads() -> None:
    program = textwrap.dedent(f"""
        import os, signal
        import numpy as np
        from catdog_edge import Classifier
        pets = Classifier({str(TINY)!r}, "cpu", threads=2)
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


def bind(pets: Classifier) -> None:
    """Run through an IO binding, as on CUDA, with buffers on the CPU."""
    inner = pets._session
    inner._bound = BoundRunner(inner._session, inner._outputs, "cpu")


def test_a_closed_one_says_so() -> None:
    with Classifier(TINY) as pets:
        assert pets(RED).label == "cat"
    with pytest.raises(ModelError, match="closed"):
        pets(RED)
    assert "closed" in repr(pets)
    for frames in ([RED], []):
        with pytest.raises(ModelError, match="closed"):
            pets.batch(frames)
        with pytest.raises(ModelError, match="closed"):
            pets.probabilities(frames)
    pets.close()


@pytest.mark.parametrize("bound", [False, True], ids=["plain", "with an IO binding"])
def test_closing_at_any_line_of_a_call(bound: bool) -> None:
    """What another thread may do between any two lines, done between each two lines."""
    lines, outcomes = 0, []
    modules = ("classifier", "session", "io_binding", "predictions")

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal passed
        if Path(frame.f_code.co_filename).stem not in modules:
            return None
        if event == "line":
            passed += 1
            if passed == lines:
                pets.close()
        return trace

    passed = 0
    while passed >= lines:
        lines, passed = lines + 1, 0
        pets = Classifier(TINY, "cpu", threads=1)
        if bound:
            pets._session._bound = BoundRunner(
                pets._session._session, pets._session._outputs, "cpu"
            )
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            outcomes.append(pets.batch([RED, BLUE])[1].label)
        except ModelError as error:
            outcomes.append(str(error))
        finally:
            sys.settrace(before)
    assert set(outcomes) == {"dog", "this classifier is closed; make a new one"}
    assert len(outcomes) > 20


@pytest.mark.parametrize("bound", [False, True], ids=["plain", "with an IO binding"])
def test_closing_during_calls_of_other_threads(bound: bool) -> None:
    """A call answers rightly or says that it is closed; nothing hangs, nothing else is raised."""
    frames = [RED, BLUE] * 40  # three chunks
    labels = ["cat", "dog"] * 40
    rounds, ended, odd = 60, [], []

    def work(pets: Classifier, begin: threading.Barrier) -> None:
        begin.wait(30)
        try:
            while True:
                if pets(RED).label != "cat" or [a.label for a in pets.batch(frames)] != labels:
                    odd.append("a wrong answer")
        except ModelError as error:
            ended.append(str(error))
        except BaseException as error:
            odd.append(repr(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        for number in range(rounds):
            pets = Classifier(TINY, "cpu", threads=2)
            if bound:
                pets._session._bound = BoundRunner(
                    pets._session._session, pets._session._outputs, "cpu"
                )
            begin = threading.Barrier(4)
            threads = [threading.Thread(target=work, args=(pets, begin)) for _ in range(3)]
            for thread in threads:
                thread.start()
            begin.wait(30)
            time.sleep(number % 10 * 2e-4)
            pets.close()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    assert not odd
    assert ended == ["this classifier is closed; make a new one"] * 3 * rounds


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


@pytest.mark.slow
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


@needs_fork
@pytest.mark.parametrize("change", ["other", "gone", "same"])
def test_a_forked_child_never_mixes_two_models(change: str, tmp_path: Path) -> None:
    """It opens the very file of its parent, or says that there is another one now."""
    file = tmp_path / "live.onnx"
    shutil.copy(TINY, file)
    other = {"other": DATA / "tiny_rejecting.onnx", "gone": None, "same": file}[change]
    program = textwrap.dedent(f"""
        import os, shutil
        import numpy as np
        from catdog_edge import Classifier, ModelError
        pets = Classifier({str(file)!r}, "cpu")
        before, spec = repr(pets), pets.spec
        frame = np.full((40, 40, 3), (0, 0, 200), np.uint8)
        if {change!r} == "other":
            shutil.copy({str(other)!r}, "new.onnx")
            os.replace("new.onnx", {str(file)!r})
        elif {change!r} == "gone":
            os.remove({str(file)!r})
        if os.fork() == 0:
            for _ in range(2):
                try:
                    print(pets(frame).label)
                except ModelError as error:
                    print(error)
            assert (repr(pets), pets.spec) == (before, spec)
            print("end", flush=True)
            os._exit(0)
        os.wait()
        print(pets(frame).label)
    """)
    done = fresh(program, tmp_path)
    *said, end, parent = done.stdout.splitlines()
    assert (end, parent, len(said)) == ("end", "cat", 2), done.stderr
    wanted = {"other": "has changed since it was opened", "gone": "any more", "same": "cat"}
    for line in said:
        assert wanted[change] in line
        assert change == "same" or line.startswith(str(file))


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


class Answering:
    """A session whose answers are spoilt on the way."""

    def __init__(self, session: Any, spoil: Any) -> None:
        self._session, self._spoil = session, spoil

    def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        results = self._session.run(outputs, feeds)
        self._spoil(results)
        return results


def test_answers_that_are_not_numbers_are_an_error() -> None:
    for column, value in ((0, np.nan), (1, np.nan), (0, np.inf), (1, -np.inf)):

        def spoil(results: list[np.ndarray], column: int = column, value: float = value) -> None:
            results[0][-1, column] = value

        pets = Classifier(TINY, "cpu")
        pets._session._session = Answering(pets._session._session, spoil)
        several = [pets.batch, pets.probabilities]
        if value != -np.inf:  # then the largest one is a number
            several.append(pets.scores)
        with pytest.raises(ModelError, match=r"tiny\.onnx: its answers are not numbers"):
            pets(RED)
        for call in several:
            with pytest.raises(ModelError, match=r"tiny\.onnx: its answers are not numbers"):
                call([RED, BLUE])

    def spoil_known(results: list[np.ndarray]) -> None:
        results[1][:] = np.nan

    pets = Classifier(DATA / "tiny_known.onnx", "cpu")
    pets._session._session = Answering(pets._session._session, spoil_known)
    for call in (pets, lambda frame: pets.scores([frame])):
        with pytest.raises(ModelError, match="not numbers"):
            call(RED)


@pytest.mark.parametrize("value", [124.5, -3.0, 1.02])
def test_logits_are_not_taken_for_probabilities(value: float) -> None:
    def spoil(results: list[np.ndarray], value: float = value, output: int = 0) -> None:
        results[output].reshape(len(results[output]), -1)[-1, 0] = value

    pets = Classifier(TINY, "cpu")
    session = pets._session._session
    pets._session._session = Answering(session, spoil)
    for call in (pets.batch, pets.probabilities, lambda frames: pets(frames[-1])):
        with pytest.raises(ModelError, match=rf"not probabilities .* one is {value:g}; .*softmax"):
            call([RED, BLUE])
    pets._session._session = Answering(
        session, lambda results: spoil(results, 1.004)
    )  # of half floats
    assert pets(RED).label == "cat"
    known = Classifier(DATA / "tiny_known.onnx", "cpu")
    known._session._session = Answering(
        known._session._session, lambda results: spoil(results, output=1)
    )
    for call in (known.batch, known.scores):
        with pytest.raises(ModelError, match="not probabilities"):
            call([RED, RED])


def test_what_onnxruntime_cannot_run_is_one_line() -> None:
    pets = Classifier(DATA / "tiny_batch4.onnx", "cpu")
    pets._session.fixed_batch = None  # as if its shape did not tell
    with pytest.raises(ModelError) as caught:
        pets.batch([RED] * 3)
    said = str(caught.value)
    assert "tiny_batch4.onnx: onnxruntime" in said
    assert "cannot run it on 3 frames (" in said
    assert said.endswith("export the model again or give one frame at a time")
    assert "\n" not in said
    assert len(pets.batch([RED] * 4)) == 4


@pytest.mark.clock  # qemu's user mode ignores the limit
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_too_little_memory_is_one_line_and_no_red_one(tmp_path: Path) -> None:
    done = fresh(
        textwrap.dedent("""
        import resource
        from pathlib import Path
        import numpy as np
        from catdog_edge import Classifier, ModelError
        pets, frame = Classifier(provider="cpu", threads=1), np.zeros((128, 128, 3), np.uint8)
        pets(frame)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 4 * 2**20, resource.RLIM_INFINITY))
        try:
            pets.batch([frame] * 32)
        except ModelError as error:
            print(error)
        print(pets(frame).label)
        """),
        tmp_path,
    )
    said, after = done.stdout.splitlines()
    assert said.endswith("not enough memory to run it; free some, or give fewer frames at a time")
    assert after in ("cat", "dog", "neither")
    assert not done.stderr


@pytest.mark.parametrize("size", [(32, 32), (1080, 1920)], ids=["running", "resizing, too"])
def test_a_daemon_thread_in_a_call_does_not_abort_the_end(
    size: tuple[int, int], tmp_path: Path
) -> None:
    done = fresh(
        textwrap.dedent(f"""
        import atexit, threading
        def after():  # registered before, hence run after: it needs what the thread holds
            with lock:
                thread.join(30)
            print(thread.is_alive(), pets(frame).label)
        atexit.register(after)
        import numpy as np
        from catdog_edge import Classifier
        pets = Classifier({str(TINY)!r}, "cpu", threads=2)
        frame = np.full({(*size, 3)}, (0, 0, 200), np.uint8)
        began, lock = threading.Event(), threading.Lock()
        def watch():
            while True:
                with lock:
                    pets(frame)
                began.set()
        def watch_without():
            while True:
                pets(frame)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        threading.Thread(target=watch_without, daemon=True).start()
        began.wait()
        """),
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False cat\n", "")


class Counting(Classifier):
    """A subclass with arguments and a state of its own."""

    def __init__(self, title: str) -> None:
        self.title = title
        super().__init__(TINY, "cpu", threads=1)
        self.count = 0

    def __call__(self, frame: Any) -> Prediction:
        self.count += 1
        return super().__call__(frame)


def through_pickle(one: Any) -> Any:
    return pickle.loads(pickle.dumps(one))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, through_pickle])
def test_a_subclass_travels_as_what_it_is(way: Any) -> None:
    before = Counting("porch")
    before(RED)
    after = way(before)
    assert type(after) is Counting
    assert (after.title, after.count) == ("porch", 1)
    assert after(BLUE).label == "dog"
    assert (before.count, after.count) == (1, 2)
    assert vars(Classifier(TINY, "cpu")).keys() == _OWN


def test_a_closed_one_neither_begins_nor_travels() -> None:
    pets = Classifier(TINY, "cpu")
    pets.close()
    for way in (pets.__enter__, lambda: pickle.dumps(pets), lambda: copy.copy(pets)):
        with pytest.raises(ModelError, match="closed"):
            way()


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
