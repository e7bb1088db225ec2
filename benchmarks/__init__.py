"""Measurements: latency, accuracy and parity. May import everything; only the CLI imports it."""
