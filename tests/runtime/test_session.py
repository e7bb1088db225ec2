"""The session of a model: its input, close, and forked children."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fresh_python import fresh
from support.images.toy_frames import BLUE, GREY, RED, frame_of
from support.paths import DATA, TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError
from catdog_edge.runtime.providers.io_binding import BoundRunner


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


@pytest.mark.slow
def test_memory_stays_where_it_was() -> None:
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs Linux's /proc")

    def pages() -> int:
        return int(status.read_text().split()[1])

    pets, frame = Classifier(TINY), frame_of(1, 2, 3)
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
