"""Execution providers: choose one, start a session with it, and run it on NVIDIA GPUs."""
