"""Two cameras share one classifier: it is safe to call from several threads.

python two_cameras.py SOURCE SOURCE [MODEL]      a file, a URL or the number of a camera
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import cv2

from catdog_edge import CatdogError, Classifier


def watch(source: str, pets: Classifier) -> int:
    """Print a prediction per frame until the source ends; return the number of frames."""
    camera = cv2.VideoCapture(int(source) if source.isdecimal() and len(source) < 4 else source)
    if not camera.isOpened():
        print(f"two_cameras.py: {source} does not open", file=sys.stderr)
    count = 0
    for count, (_, frame) in enumerate(iter(camera.read, (False, None)), 1):
        print(f"{source}: {pets(frame)}, frame {count}\n", end="", flush=True)  # in one piece
    return count


cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # reported above, in one line
if len(sys.argv) < 3:
    sys.exit("usage: python two_cameras.py SOURCE SOURCE [MODEL]")
try:  # in this order: Ctrl-C closes the classifier, which ends the threads of the pool
    with ThreadPoolExecutor(2) as pool, Classifier(*sys.argv[3:4]) as pets:
        watched = [pool.submit(watch, source, pets) for source in sys.argv[1:3]]
        while wait(watched, timeout=0.1).not_done:  # not longer: a signal may miss the wait
            pass
        counts = [one.result() for one in watched]
except (CatdogError, OSError, KeyboardInterrupt) as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not written yet
    sys.exit(f"two_cameras.py: {str(error) or 'stopped'}")
print(f"{sum(counts)} frames", file=sys.stderr)
sys.exit(0 if all(counts) else 1)
