"""From frames and predictions to events."""
