"""The end of a process while threads are inside native code."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from support.fresh_python import fresh
from support.paths import TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


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
