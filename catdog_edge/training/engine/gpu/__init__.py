"""Batches and steps that are made on a GPU."""
