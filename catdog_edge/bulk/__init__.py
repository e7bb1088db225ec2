"""Classify a large set of images into a folder of results: whole parts, resumable, or on Ray."""
