"""Stand-alone studies that `bench` does not call."""
