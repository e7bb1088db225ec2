"""From a checkpoint to a checked ONNX file: export, quantize, verify. Needs torch and onnx."""
