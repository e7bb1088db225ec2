"""The run folder: files, plots, progress, provenance."""
