"""Reject YAML texts that would take hours to load or exhaust the stack: nested aliases can expand to billions of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 1_000_000, 20_000, 50
"""Maximum number of characters, values and nesting levels; real settings have a few hundred values and four levels."""


class YamlLimitError(Exception):
    """Raised if a YAML text is too large, is nested too deeply, or contains itself.

    The message is the end of a sentence that begins with the name of the text, such as `has more than 20,000 values`.
    """


def read_text(path: Path) -> str:
    """Return the text of a file, cut off after MAX_CHARACTERS + 1 characters; `compose` rejects a text of that length.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with path.open(encoding="utf8") as file:
        return file.read(MAX_CHARACTERS + 1)


def compose(text: str) -> yaml.Node | None:
    """Return the root node of a YAML text, or None if it is empty, after checking that it is not too large.

    Raises:
        YamlLimitError: the text has too many characters, too many values or levels (with aliases expanded), or a value that
            contains itself.
        yaml.YAMLError: the text is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlLimitError(f"has more than {MAX_CHARACTERS:,} characters")
    # Count first without aliases, and stop at the limits: the nodes of a million characters would take 400 MB.
    values = levels = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        values += isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionStartEvent)
        levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        _check_limits(values, levels)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None:
        _measure(node, {})
    return node


def construct(node: yaml.Node | None) -> Any:
    """Return the value of a node that `compose` returned; None for None. Raise yaml.YAMLError if a value is not valid."""
    return None if node is None else yaml.SafeLoader("").construct_document(node)


def _check_limits(values: int, levels: int) -> None:
    """Raise YamlLimitError if a YAML text has too many values or nesting levels."""
    if values > MAX_VALUES:
        raise YamlLimitError(f"has more than {MAX_VALUES:,} values, with its aliases expanded")
    if levels > MAX_DEPTH:
        raise YamlLimitError(f"is nested deeper than {MAX_DEPTH} levels")


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return the number of values and of nesting levels of a node; raise YamlLimitError if one is too large.

    `known` is a dict from the id of each node that was measured before to the result; None while the node is being measured.
    An alias is the node to which it refers, so it counts as much, and is measured only once.
    """
    if id(node) not in known:
        known[id(node)] = None
        items = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [_measure(part, known) for item in items for part in (item if isinstance(item, tuple) else (item,))]
        values, levels = 1 + sum(count for count, _ in parts), 1 + max((depth for _, depth in parts), default=0)
        _check_limits(values, levels)
        known[id(node)] = values, levels
    found = known[id(node)]
    if found is None:
        raise YamlLimitError("has a value that contains itself")
    return found
