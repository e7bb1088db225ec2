"""Conversion to ONNX and its file formats."""
