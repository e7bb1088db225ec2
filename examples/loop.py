"""Print what every frame of a camera or a video file shows.

python loop.py [SOURCE [MODEL]]      SOURCE is a file, a URL or the number of a camera
"""

from __future__ import annotations

import os
import sys

import cv2

from catdog_edge import CatdogError, Classifier

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # reported below, in one line
source = sys.argv[1] if len(sys.argv) > 1 else "0"
try:
    pets = Classifier(*sys.argv[2:3])
except CatdogError as error:
    sys.exit(f"loop.py: {error}")
camera = cv2.VideoCapture(int(source) if source.isdecimal() and len(source) < 4 else source)
if not camera.isOpened():
    sys.exit(f"loop.py: {source} does not open; give a video file, a URL or a camera's number")
try:
    while True:
        ok, frame = camera.read()
        if not ok:
            break
        print(pets(frame), flush=True)  # cat 0.97
except KeyboardInterrupt:
    sys.exit(130)
except (CatdogError, OSError) as error:  # a full disk, or `| head` that has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(f"loop.py: {error}")
