"""Data sets in messages."""

from __future__ import annotations

import logging

from catdog_edge.training.data.load import Dataset

log = logging.getLogger(__name__)


def source_name(dataset: Dataset) -> str:
    """How the data is called in words for people."""
    return "the drawn sample set" if dataset.is_sample else str(dataset.source)


def describe(dataset: Dataset) -> None:
    """Log what the data is."""
    for line in dataset.describe():
        log.info(line)
