"""Refuse YAML that would take hours or the whole stack: a few aliases of aliases stand for billions of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

MOST_CHARACTERS, MOST_VALUES, DEEPEST = 1_000_000, 20_000, 50
"""Settings that people write have a few hundred values, four levels deep."""


class UnboundedError(Exception):
    """A YAML is larger, or deeper, than settings can be; the message says by what."""


def read_text(path: Path) -> str:
    """Return the text of a file, of which no more is read than `check` would let pass.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open(encoding="utf8") as file:
        return file.read(MOST_CHARACTERS + 1)


def check_size(text: str) -> None:
    """Refuse a YAML by its events, before anything is made of it.

    Raises:
        UnboundedError: it has too many characters, or too many values or levels with its aliases expanded, or a value that
            holds itself.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) > MOST_CHARACTERS:
        raise UnboundedError(f"has more than {MOST_CHARACTERS:,} characters")
    measured = _SizeCounter()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        measured.add(event)


@dataclass
class _Collection:
    """A list or mapping whose end is not reached yet."""

    anchor: str | None
    began: int
    """Number of values before it."""
    levels: int = 1


class _SizeCounter:
    """How many values and levels there are so far, each alias counted as all that it stands for."""

    def __init__(self) -> None:
        self._values = 0
        self._around: list[_Collection] = []
        self._anchored: dict[str | None, tuple[int, int]] = {}
        """Anchor -> values and levels of what it names."""

    def add(self, event: yaml.Event) -> None:
        """Count what an event begins, ends or repeats."""
        levels = 0
        if isinstance(event, yaml.CollectionStartEvent):
            self._around.append(_Collection(event.anchor, self._values))
            self._values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self._around.pop()
            levels = ended.levels
            self._anchored[ended.anchor] = (self._values - ended.began, levels)
        elif isinstance(event, yaml.AliasEvent):
            levels = self._repeat(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._values += 1
            levels = 1
            self._anchored[event.anchor] = (1, levels)
        if self._around:
            self._around[-1].levels = max(self._around[-1].levels, levels + 1)
        if self._values > MOST_VALUES:
            raise UnboundedError(f"has more than {MOST_VALUES:,} values, with its aliases expanded")
        if len(self._around) + levels > DEEPEST:
            raise UnboundedError(f"is nested deeper than {DEEPEST} levels")

    def _repeat(self, alias: yaml.AliasEvent) -> int:
        if any(one.anchor == alias.anchor for one in self._around):
            raise UnboundedError(f"has a value that holds itself: {alias.anchor}")
        # One that no anchor names is no YAML, as whoever composes it will say.
        values, levels = self._anchored.get(alias.anchor, (1, 1))
        self._values += values
        return levels
