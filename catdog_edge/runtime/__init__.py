"""ONNX Runtime sessions: model files, providers, threads, the classifier."""
