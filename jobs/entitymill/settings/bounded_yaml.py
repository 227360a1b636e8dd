"""Load YAML texts, but reject those that would take hours to load or exhaust the stack.

This is necessary because nested aliases can expand to billions of values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS, MAX_VALUES, MAX_DEPTH = 1_000_000, 20_000, 50
"""Largest allowed numbers of characters, values and nesting levels of a YAML text. Real settings files have at most a few
hundred values and four levels."""


class YamlLimitError(Exception):
    """Raised if a YAML text is too large, is nested too deeply, or contains itself.

    The message has no subject, as in `is nested deeper than 50 levels`; the caller puts the name of a file or key before it.
    """


def read_text(path: Path) -> str:
    """Return at most the first MAX_CHARACTERS + 1 characters of a file.

    The one additional character is enough for `compose` to reject a file that is too long.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with path.open(encoding="utf8") as file:
        return file.read(MAX_CHARACTERS + 1)


def compose(text: str) -> yaml.Node | None:
    """Parse a YAML text that is within the limits of this module, and return its root node; None for an empty text.

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
    """Convert a node from `compose` to Python values, such as a dict of lists; convert None to None.

    Raise yaml.YAMLError or ValueError for a value that Python cannot represent, such as the date 2024-02-31.
    """
    return None if node is None else yaml.SafeLoader("").construct_document(node)


def _check_limits(values: int, levels: int) -> None:
    """Raise YamlLimitError if a YAML text has more than MAX_VALUES values, or more than MAX_DEPTH nesting levels."""
    if values > MAX_VALUES:
        raise YamlLimitError(f"has more than {MAX_VALUES:,} values, with its aliases expanded")
    if levels > MAX_DEPTH:
        raise YamlLimitError(f"is nested deeper than {MAX_DEPTH} levels")


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return (number of values, number of nesting levels) of a node.

    Raise YamlLimitError if one of these numbers is over its limit, or if the node contains itself.

    `known` is a dict from `id(node)` to the node's result, or to None while the node is being measured. An alias and its
    target are the same node object. So the target is measured once, but its values count again for each alias.
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
