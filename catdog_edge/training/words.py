"""Words for people, on stderr. Knows nothing but data sets' names."""

from __future__ import annotations

import os

import click

from catdog_edge.training.data.load import Dataset


def say(text: str) -> None:
    """A line for people; of the processes that `torchrun` started only the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(text, err=True)


def warn(text: str) -> None:
    """A line for people about what they may not have meant."""
    say(f"catdog-edge: warning: {text}")


def source_name(dataset: Dataset) -> str:
    """How the data is called in words for people."""
    return "the drawn sample set" if dataset.is_sample else str(dataset.source)


def describe(dataset: Dataset) -> None:
    """Say what the data is."""
    for line in dataset.describe():
        say(line)
