"""ONNX graph surgery."""
