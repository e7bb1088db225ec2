"""Data sets: layouts, labels, splits, decoding, caching."""
