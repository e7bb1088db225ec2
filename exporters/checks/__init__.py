"""Parity, accuracy and speed of an exported file."""
