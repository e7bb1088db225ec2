"""Name data sets and the sources of their files.

A file called `SOURCE-anything.jpg` is of that source. Where a data set has more than `MOST_SOURCES`
such words, or a file without one or with one that repeats its class (`cat/cat-001.jpg`), the whole
set is one source, named after its folder or zip. So are sets whose files all have one word, the
same in another set: cameras that call every image `IMG-0001.jpg`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from catdog_edge.training.data.dataset import Dataset

MOST_SOURCES = 20  # more different first words than this are numbers or digests, not sources

_SOURCE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)-.")


def file_sources(dataset: Dataset) -> dict[str, str]:
    """Return the source of each file of a data set.

    Examples:
        >>> file_sources(open_dataset("wild.zip"))["cat/pixabay-1f0e.jpg"]
        'pixabay'
    """
    whole = dataset.whole  # what is left of a set keeps its names
    if not whole.one_source and (words := _file_words(whole)):
        return words
    name = whole.name or whole.plain_name
    return {item.file: name for item in whole.items}


def _file_words(dataset: Dataset) -> dict[str, str]:
    """Return the first word of each file's name; empty if these are no sources."""
    found = {}
    for item in dataset.items:
        match = _SOURCE.match(PurePosixPath(item.file).name)
        if match and not _same_word(match[1], dataset.labels[item.label]):
            found[item.file] = match[1]
    fits = len(found) == len(dataset.items) and len(set(found.values())) <= MOST_SOURCES
    return found if fits else {}


def _same_word(one: str, two: str) -> bool:
    """Compare without case and plural: `cats/Cat-1.jpg`."""
    return one.casefold().removesuffix("s") == two.casefold().removesuffix("s")


def told_apart(datasets: Sequence[Dataset], known: Sequence[str] = ()) -> tuple[Dataset, ...]:
    """Name data sets of one `plain_name` by as much of the end of their paths as makes them differ.

    A set whose files all begin with one word, the only one of another set too, becomes one source
    of that name; but not if the word is one of the `known` names. A set that can have one of these,
    given beside other sets, has it here too.

    Examples:
        >>> [one.name for one in told_apart(open_datasets(["a/images", "b/images", "pets.zip"]))]
        ['a/images', 'b/images', 'pets']
    """

    def names(one: Dataset) -> list[str]:
        parts = Path(one.source).parts
        return [one.plain_name, *(Path(*parts[-n:]).as_posix() for n in range(1, len(parts) + 1))]

    words = [set(_file_words(one.whole).values()) for one in datasets]
    found = []
    for one, own_words in zip(datasets, words):
        others = {name for two in datasets if two.source != one.source for name in names(two)}
        own = [name for name in names(one) if name not in others]
        fitting = [name for name in own if name in known]
        alike = any(
            two.source != one.source and theirs == own_words for two, theirs in zip(datasets, words)
        )
        only = len(own_words) == 1 and own_words.isdisjoint(known)
        one_source = only and (alike or bool(fitting))
        name = [*fitting, *own, one.source][0]
        found.append(replace(one, name=name, one_source=one_source))
    return tuple(found)
