"""How far a model of lower precision departs from its original: both tag the same sentences, their mentions are compared.

The sentences are of a small table: Parquet, Delta or JSON lines, read without Spark.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from rich.console import Console

from entitymill.errors import SettingsError
from entitymill.recognition.mentions import TagScheme
from entitymill.recognition.tagger import Execution, Precision, bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.spark import requirements

Mentions = set[tuple[int, int, int, str]]
"""(sentence, first token, token after the last, label) of each."""
TOKENS, TAGS, TEXT = "tokens", "tags", "text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_WORD = re.compile(r"\w+|[^\w\s]")
"""A run of letters, digits and underscores, or one other sign: near enough to a tokenizer's tokens to compare two runs."""
MAX_SENTENCES = 200_000
"""Read at most; the sample is spread over these."""
LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Scores:
    """What was measured; scores are by precision of execution.

    sentences, mentions: how many were tagged, and found by the original in f32.
    original, reduced: span F1 against gold; empty where there is none.
    agreement: span F1 of the reduced model's mentions against the original's in f32.
    """

    sentences: int
    mentions: int
    original: dict[str, float]
    reduced: dict[str, float]
    agreement: dict[str, float]

    def loss(self) -> float:
        """What the worst precision of execution loses: F1 against gold, or without gold, agreement with the original."""
        if self.reduced:
            return max(self.original["f32"] - score for score in self.reduced.values())
        return max(1 - score for score in self.agreement.values())


def executions(manifest: bundle.Manifest) -> tuple[Precision, ...]:
    """The precisions a bundle can be run in, the plainest first."""
    return ("f32", "bf16", "int8") if manifest.precision == "int8" else ("f32", "bf16")


def print_scores(console: Console, scores: Scores) -> None:
    """One line for each precision of execution; no text."""
    console.print(f"checked on {scores.sentences:,} sentences, {scores.mentions:,} mentions in f32", highlight=False)
    if scores.original:
        console.print(f"  original  f32   F1 {scores.original['f32']:.4f}", highlight=False)
    for precision, agreement in scores.agreement.items():
        f1 = f"F1 {scores.reduced[precision]:.4f}, " if scores.reduced else ""
        console.print(f"  written   {precision:4}  {f1}agrees with f32 {agreement:.4f}", highlight=False)


def compare(original: Path | None, reduced: Path, sample: Sample) -> Scores:
    """Tag a sample with two bundles.

    Args:
        original: the bundle to compare with, run in f32; None where there is no other.
        reduced: the bundle to judge, run in every precision it can be.
        sample: sentences, with gold tags or without.

    Raises:
        ModelError: a bundle does not run.
    """
    manifest, _ = bundle.read_directory(reduced)
    found = {precision: tag(reduced, precision, sample.sentences) for precision in executions(manifest)}
    base = found.get("f32", set()) if original is None else tag(original, "f32", sample.sentences)
    gold = None if sample.gold is None else _gold(sample.gold)
    return Scores(
        sentences=len(sample.sentences),
        mentions=len(base),
        original={} if gold is None else {"f32": span_f1(base, gold)},
        reduced={} if gold is None else {name: span_f1(mentions, gold) for name, mentions in found.items()},
        agreement={name: span_f1(mentions, base) for name, mentions in found.items()},
    )


def tag(directory: Path, precision: Precision, sentences: Sequence[Sequence[str]]) -> Mentions:
    """The mentions that a bundle finds.

    Raises:
        ModelError: it does not run.
    """
    manifest, files = bundle.read_directory(directory)
    how = Execution(precision, threads=len(os.sched_getaffinity(0)))
    tagger = Tagger.load(files, manifest, how)
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    tags = tagger.tag([token for sentence in sentences for token in sentence], lengths)
    return _mentions(tagger.labels, tags.tags, lengths, tagger.scheme)


def span_f1(found: Mentions, expected: Mentions) -> float:
    """Harmonic mean of precision and recall of exact spans with their labels; 1 where there is nothing to find or found."""
    if not found and not expected:
        return 1.0
    return 2 * len(found & expected) / (len(found) + len(expected))


def _gold(tags: Sequence[Sequence[str]]) -> Mentions:
    labels = ("O", *sorted({tag for sentence in tags for tag in sentence} - {"O"}))
    number = {label: i for i, label in enumerate(labels)}
    flat = np.array([number[tag] for sentence in tags for tag in sentence], np.int16)
    return _mentions(labels, flat, np.array([len(sentence) for sentence in tags], np.int64))


def _mentions(
    labels: Sequence[str], tags: NDArray[np.int16], lengths: NDArray[np.int64], how: bundle.Scheme = "iob2"
) -> Mentions:
    scheme = TagScheme(labels, splits_kinds=how == "iob1")
    sentence_of = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    spans = scheme.join_spans(tags, np.ones(len(tags), np.float32), sentence_of)
    return {
        (int(sentence_of[first]), int(first - begins[first]), int(last - begins[first]), scheme.kinds[kind])
        for first, last, kind in zip(spans.first, spans.last, spans.kinds, strict=True)
    }


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


def read_sample(path: Path, option: str) -> Sample:
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
        raise SettingsError(f"A sample that is a Delta table needs {requirements.PREPARE}.") from error
    try:
        return deltalake.DeltaTable(str(path)).to_pyarrow_dataset()
    except deltalake.exceptions.DeltaError as error:
        raise ValueError("not a Delta table") from error
