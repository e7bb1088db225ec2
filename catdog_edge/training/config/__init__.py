"""Options and recipes of a training run."""
