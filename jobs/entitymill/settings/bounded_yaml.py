"""Reject YAML texts that would take hours to load or exhaust the stack: nested aliases can expand to billions of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 1_000_000, 20_000, 50
"""Maximum number of characters, values and nesting levels; real settings have a few hundred values and four levels."""


class YamlLimitError(Exception):
    """Raised if a YAML text is too large, is nested too deeply, or contains itself.

    The message is the end of a sentence that begins with the name of the text, such as `has more than 20,000 values`.
    """


def read_text(path: Path) -> str:
    """Return the text of a file, cut off after MAX_CHARACTERS + 1 characters; `check_size` rejects a text of that length.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with path.open(encoding="utf8") as file:
        return file.read(MAX_CHARACTERS + 1)


def check_size(text: str) -> None:
    """Check that a YAML text is neither too large nor nested too deeply, without building its values.

    Raises:
        YamlLimitError: the text has too many characters, too many values or levels (with aliases expanded), or a value that
            contains itself.
        yaml.YAMLError: the text is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlLimitError(f"has more than {MAX_CHARACTERS:,} characters")
    counter = _SizeCounter()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        counter.add(event)


@dataclass
class _Collection:
    """A list or mapping whose end the parser has not reached yet.

    anchor: name by which aliases refer to the collection; None if it has none.
    values_before: number of values counted before the collection began.
    levels: nesting depth of the collection, as far as it was parsed.
    """

    anchor: str | None
    values_before: int
    levels: int = 1


class _SizeCounter:
    """A counter of the values and nesting levels of a YAML text; an alias counts as much as the value that it refers to."""

    def __init__(self) -> None:
        self._values = 0
        self._open: list[_Collection] = []
        self._anchored: dict[str | None, tuple[int, int]] = {}
        """Anchor -> (number of values, number of levels) of the anchored value."""

    def add(self, event: yaml.Event) -> None:
        """Count the values and levels that an event adds.

        Raise a YamlLimitError if there are too many of them, or if a value contains itself.
        """
        levels = 0
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Collection(event.anchor, self._values))
            self._values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self._open.pop()
            levels = ended.levels
            self._anchored[ended.anchor] = (self._values - ended.values_before, levels)
        elif isinstance(event, yaml.AliasEvent):
            levels = self._count_alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._values += 1
            levels = 1
            self._anchored[event.anchor] = (1, levels)
        if self._open:
            self._open[-1].levels = max(self._open[-1].levels, levels + 1)
        if self._values > MAX_VALUES:
            raise YamlLimitError(f"has more than {MAX_VALUES:,} values, with its aliases expanded")
        if len(self._open) + levels > MAX_DEPTH:
            raise YamlLimitError(f"is nested deeper than {MAX_DEPTH} levels")

    def _count_alias(self, alias: yaml.AliasEvent) -> int:
        """Count the values of the value to which an alias refers, and return the number of its nesting levels.

        Raise a YamlLimitError if the alias is inside that value.
        """
        if any(collection.anchor == alias.anchor for collection in self._open):
            raise YamlLimitError(f"has a value that contains itself: {alias.anchor}")
        # An alias without an anchor is an error, which the YAML parser reports later.
        values, levels = self._anchored.get(alias.anchor, (1, 1))
        self._values += values
        return levels
