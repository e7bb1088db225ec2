"""The version of catdog-edge, of every package in its wheel."""

__version__ = "0.1.0"
