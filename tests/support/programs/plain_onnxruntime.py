"""An exported file in plain onnxruntime: neither torch nor catdog-edge, only the resize."""

import ast
import sys

import cv2
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
keys = session.get_modelmeta().custom_metadata_map
names, (height, width) = ast.literal_eval(keys["names"]), ast.literal_eval(keys["imgsz"])
frame = cv2.imread(sys.argv[2])
small = (min(frame.shape[1], 2 * width), min(frame.shape[0], 2 * height))
frame = cv2.resize(frame, small, interpolation=cv2.INTER_LINEAR)
frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
(answer,) = session.run(["probabilities"], {"frames": frame[None]})[0]
assert not {"torch", "catdog_edge", "exporters"} & set(sys.modules)
print(names[int(answer.argmax())], answer.max())
