"""Network architectures, weights and checkpoints."""
