"""Print who comes and leaves before the camera of a Raspberry Pi, which Picamera2 reads.

python picamera2_events.py [MODEL]      how to install Picamera2: docs/device.md
"""

import itertools
import os
import sys
import time

from picamera2 import Picamera2

from catdog_edge import CatdogError, Classifier, Events
from catdog_edge.camera.camera import Frame

try:
    with Classifier(*sys.argv[1:2], spin=False) as pets, Picamera2() as camera:
        form = {"size": (1280, 720), "format": "RGB888"}  # in memory blue, green, red
        camera.configure(camera.create_video_configuration(main=form))
        camera.start()
        events = Events(pets)
        try:
            for index in itertools.count():
                image = camera.capture_array("main")
                frame = Frame(image, index, time.monotonic(), time.time(), source="pi", live=True)
                for event in events.feed(frame):
                    print(event, flush=True)  # 2026-11-22T15:04:05Z pi cat enter 0.97
        except KeyboardInterrupt:  # the visit under way ends, too
            sys.stdout.writelines(f"{event}\n" for event in events.finish("pi", "stopped"))
            sys.exit(130)
except (CatdogError, OSError, IndexError, RuntimeError) as error:  # IndexError: no camera
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not written yet
    sys.exit(f"picamera2_events.py: {error}")
