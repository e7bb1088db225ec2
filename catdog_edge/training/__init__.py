"""Training: torch lives here. Imports the edge rooms, never the exporters or benchmarks."""
