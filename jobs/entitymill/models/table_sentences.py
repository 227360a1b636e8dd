"""Sentences to measure a model on, from a small table: Parquet, Delta or JSON lines. Spark is not started for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from entitymill.errors import SettingsError
from entitymill.platform import not_installed

TOKENS, TAGS, TEXT = "tokens", "tags", "text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_WORD = re.compile(r"\w+|[^\w\s]")
"""A run of letters, digits and underscores, or one other sign: near enough to a tokenizer's tokens to compare two runs."""
MAX_SENTENCES = 200_000
"""Read at most; the sample is spread over these."""
LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Sample:
    """sentences: tokens of each, none empty; gold: their tags, or None where the table has none."""

    sentences: list[list[str]]
    gold: list[list[str]] | None

    def spread(self, count: int) -> Sample:
        """So many sentences, or all, at even distances."""
        size = len(self.sentences)
        chosen = [place * size // count for place in range(count)] if size > count else range(size)
        return Sample([self.sentences[i] for i in chosen], None if self.gold is None else [self.gold[i] for i in chosen])

    def without(self, other: Sample) -> Sample:
        """The sentences that the other does not have."""
        theirs = {tuple(sentence) for sentence in other.sentences}
        kept = [i for i, sentence in enumerate(self.sentences) if tuple(sentence) not in theirs]
        return Sample([self.sentences[i] for i in kept], None if self.gold is None else [self.gold[i] for i in kept])


def read(path: Path, option: str) -> Sample:
    """The sentences of a table.

    A table with a column `tokens` (lists of strings), and perhaps `tags` (as many IOB2 tags), has one sentence a row.
    Otherwise its column `text`, or its only column of strings, is split after . ! ? and at blank lines, then into words.

    Args:
        path: a Parquet file or directory, a Delta table's directory, or a file of JSON lines (*.jsonl, *.json).
        option: what named it, for messages.

    Raises:
        SettingsError: it is missing, cannot be read, or has no such column or no sentence.
    """
    if not path.exists():
        raise SettingsError(f"{option}: {path} does not exist.")
    try:
        rows = _json_rows(path) if path.suffix in (".jsonl", ".json") else _table_rows(path)
        found = _collect(rows, path, option)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SettingsError(f"{option}: {path} is no Parquet, Delta or JSON-lines table that can be read.") from error
    if not found.sentences:
        raise SettingsError(f"{option}: {path} holds no sentence.")
    return found


def _collect(rows: Iterator[dict[str, Any]], path: Path, option: str) -> Sample:
    sentences: list[list[str]] = []
    gold: list[list[str]] = []
    tagged = True
    for row in rows:
        if TOKENS in row:
            tokens, tags = row[TOKENS], row.get(TAGS)
            _check_tokens(tokens, tags, path, option)
            tagged = tagged and tags is not None
            if tokens:
                sentences.append(tokens)
                gold.append(tags or [])
        else:
            tagged = False
            sentences += split(_text(row, path, option))
        if len(sentences) >= MAX_SENTENCES:
            break
    return Sample(sentences, gold if tagged else None)


def split(text: str) -> list[list[str]]:
    """Sentences of a text, each a list of words, by rule; the longest are cut."""
    found = (_WORD.findall(part)[:LONGEST_SENTENCE] for part in _SENTENCE_END.split(text))
    return [words for words in found if words]


def _check_tokens(tokens: object, tags: object, path: Path, option: str) -> None:
    ok = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    if not ok:
        raise SettingsError(f"{option}: column tokens of {path} is not a list of strings in every row.")
    if tags is None:
        return
    if not isinstance(tags, list) or len(tags) != len(tokens) or not all(isinstance(tag, str) for tag in tags):  # type: ignore[arg-type]
        raise SettingsError(f"{option}: column tags of {path} is not a list of one tag a token in every row.")


def _text(row: dict[str, Any], path: Path, option: str) -> str:
    strings = [name for name, value in row.items() if isinstance(value, str)]
    name = TEXT if TEXT in row else strings[0] if len(strings) == 1 else None
    if name is None:
        raise SettingsError(f"{option}: {path} has neither a column tokens nor text, and not one column of strings alone.")
    value = row[name]
    return value if isinstance(value, str) else ""


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf8") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is not an object")
                yield row


def _table_rows(path: Path) -> Iterator[dict[str, Any]]:
    found = _delta(path) if (path / "_delta_log").is_dir() else ds.dataset(path, format="parquet")
    for batch in found.to_batches(batch_size=1024):
        yield from batch.to_pylist()


def _delta(path: Path) -> Any:
    try:
        import deltalake  # noqa: PLC0415  - one kind of sample needs it
    except ImportError as error:
        raise SettingsError(f"A sample that is a Delta table needs {not_installed.PREPARE}.") from error
    try:
        return deltalake.DeltaTable(str(path)).to_pyarrow_dataset()
    except deltalake.exceptions.DeltaError as error:
        raise ValueError("not a Delta table") from error
