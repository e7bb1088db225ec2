"""Words for people, on stderr. Knows nothing but data sets' names."""

from __future__ import annotations

import click

from catdog_edge.training.data import Dataset


def say(text: str) -> None:
    """A line for people."""
    click.echo(text, err=True)


def source_name(dataset: Dataset) -> str:
    """How the data is called in words for people."""
    return "the drawn sample set" if dataset.is_sample else str(dataset.source)
