"""What `source.where` may ask: of a row, not of where it happens to lie."""

from __future__ import annotations

import re

_OF_THE_READING = re.compile(
    r"\b(input_file_name|input_file_block_start|input_file_block_length|spark_partition_id|monotonically_increasing_id)`?\s*\(",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def check(where: str) -> None:
    """Refuse a condition on files and tasks, which holds for other rows in every run.

    Raises:
        ValueError: it asks for one of them; what it compares with, in quotes, may be called so.
    """
    found = _OF_THE_READING.search(_LITERAL.sub("''", where))
    if found:
        raise ValueError(
            f"{found[1]}() tells how a row is read, which is another way in every run, and not what is in it: "
            "name columns of the source alone"
        )
