"""Measurements: latency, memory, parity, robustness."""
