"""Inference over a data set, metrics, calibration, rejection."""
