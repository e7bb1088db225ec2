"""Which files the onnxruntime of this environment loads and runs; for the table in docs/export.md.

python tests/support/programs/onnxruntime_versions.py FILE.onnx ...
"""

import sys

import numpy as np
import onnxruntime

onnxruntime.set_default_logger_severity(4)
for name in sys.argv[1:]:
    try:
        session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
        value = session.get_inputs()[0]
        shape = [axis if isinstance(axis, int) else 1 for axis in value.shape]
        kind = np.uint8 if "uint8" in value.type else np.float32
        found = session.run(None, {value.name: np.full(shape, 100, kind)})[0]
        print(onnxruntime.__version__, name, "runs", found.round(4).tolist())
    except Exception as error:
        print(onnxruntime.__version__, name, "REFUSED", str(error).splitlines()[0][-120:])
