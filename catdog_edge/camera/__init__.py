"""Frame sources: recordings and live cameras."""
