"""Two cameras share one classifier: it is safe to call from several threads.

python two_cameras.py SOURCE SOURCE [MODEL]      a file, a URL or the number of a camera
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import cv2

from catdog_edge import CatdogError, Classifier


def watch(source: str, pets: Classifier) -> int:
    """Print an answer per frame until the source ends; the number of frames."""
    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not camera.isOpened():
        print(f"two_cameras.py: {source} does not open", file=sys.stderr)
    count = 0
    while True:
        ok, frame = camera.read()
        if not ok:
            return count
        print(f"{source}: {pets(frame)}\n", end="")  # in one piece, from whichever thread
        count += 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python two_cameras.py SOURCE SOURCE [MODEL]")
    try:
        with Classifier(*sys.argv[3:4]) as pets, ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(lambda source: watch(source, pets), sys.argv[1:3]))
    except CatdogError as error:
        sys.exit(f"two_cameras.py: {error}")
    print(f"{sum(counts)} frames", file=sys.stderr)
    sys.exit(0 if all(counts) else 1)
