"""Print who comes and leaves before the camera of a Jetson, which GStreamer reads.

python jetson_events.py [SOURCE [MODEL]]      SOURCE: elements of GStreamer that give frames
"""

import os
import sys
import time

import gi
import numpy as np

from catdog_edge import CatdogError, Classifier, Events
from catdog_edge.camera.camera import Frame

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

CAMERA = "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720 ! nvvidconv"
SINK = "videoconvert ! video/x-raw,format=BGR ! appsink name=sink sync=0 max-buffers=1 drop=1"
Gst.init(None)
try:
    events = Events(Classifier(*sys.argv[2:3], spin=False))
    camera = Gst.parse_launch(f"{sys.argv[1] if len(sys.argv) > 1 else CAMERA} ! {SINK}")
    sink = camera.get_by_name("sink")
    camera.set_state(Gst.State.PLAYING)
    for index, sample in enumerate(iter(lambda: sink.emit("try-pull-sample", 10**10), None)):
        form = sample.get_caps().get_structure(0)
        width, height = form.get_value("width"), form.get_value("height")
        data = np.frombuffer(bytearray(sample.get_buffer().extract_dup(0, 1 << 40)), np.uint8)
        image = data.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)  # padded
        frame = Frame(image, index, time.monotonic(), time.time(), source="jetson", live=True)
        for event in events.feed(frame):
            print(event, flush=True)  # 2026-11-22T15:04:05Z jetson cat enter 0.97
    sys.stdout.writelines(f"{event}\n" for event in events.finish("jetson", "lost"))
    sys.exit("jetson_events.py: no frame comes, or no more in 10 s; GST_DEBUG=2 tells why")
except (CatdogError, OSError, GLib.Error, KeyboardInterrupt) as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not written yet
    sys.exit(f"jetson_events.py: {str(error) or 'stopped'}")
