"""Batches: their loading and augmentation, on the CPU and on a GPU."""
