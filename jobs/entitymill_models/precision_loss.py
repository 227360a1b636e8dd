"""Compare the mentions that a model finds before and after its weights are stored in a lower precision.

The sentences come from a small table (Parquet, Delta or JSON lines), which is read without Spark. Span F1 is the F1 score of
mentions; a mention is correct only if both its span and its label are correct. Gold tags are correct tags from people.
"""

from __future__ import annotations

import itertools
import json
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
from entitymill.recognition import hardware
from entitymill.recognition.tagger import Decoding, Execution, Precision, bundle, list_precisions
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tags_to_mentions import TagScheme
from entitymill.spark import installation

Mention = tuple[int, int, int, str]
"""A mention: index of its sentence, index of its first token in the sentence, index after its last token, label."""
Mentions = set[Mention]
TOKENS, TAGS, TEXT = "tokens", "tags", "text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_WORD = re.compile(r"\w+|[^\w\s]")
"""Matches a word, or one other character that is not white space: close enough to tokens for comparing two models."""
MAX_SENTENCES = 200_000
"""Reading a table stops after this many sentences; the sample is selected from them."""
MAX_SENTENCE_WORDS = 1000
"""Maximum number of words in a sentence that is split from a text; further words are dropped."""


@dataclass(frozen=True)
class Scores:
    """The result of comparing a model of reduced precision with its original or, without an original, with itself in f32.

    sentences: number of tagged sentences.
    mentions: number of mentions that the original model finds in f32.
    original: a dict from "f32" to the span F1 of the original model against gold (correct) tags; empty without gold tags.
    reduced: a dict from each precision of the reduced model to the span F1 against gold tags; empty without gold tags.
    agreement: a dict from each precision of the reduced model to the span F1 of its mentions against the original's in f32.
    """

    sentences: int
    mentions: int
    original: dict[str, float]
    reduced: dict[str, float]
    agreement: dict[str, float]

    def compute_loss(self) -> float:
        """Return how much span F1 the reduced model loses against the original in f32, in the precision that loses most.

        With gold (correct) tags, the loss is the original's F1 in f32 minus the lowest value in `reduced`. The loss is
        negative if F1 increases in every precision. Without gold tags, the loss is 1 minus the lowest value in `agreement`.
        """
        if self.reduced:
            return max(self.original["f32"] - score for score in self.reduced.values())
        return max(1 - score for score in self.agreement.values())


def print_scores(console: Console, scores: Scores) -> None:
    """Print the numbers of sentences and mentions, the original's F1 in f32, and the reduced model's scores; no texts."""
    console.print(f"checked on {scores.sentences:,} sentences, {scores.mentions:,} mentions found in f32", highlight=False)
    if scores.original:
        console.print(f"  original  f32   F1 {scores.original['f32']:.4f}", highlight=False)
    for precision, agreement in scores.agreement.items():
        f1 = f"F1 {scores.reduced[precision]:.4f}, " if scores.reduced else ""
        console.print(f"  written   {precision:4}  {f1}agreement with f32 {agreement:.4f}", highlight=False)


def compare_bundles(original: Path | None, reduced: Path, sample: Sample) -> Scores:
    """Tag a sample with two bundles; return how well their mentions agree with each other and with the gold tags.

    Args:
        original: the bundle to compare with, which runs in f32; None to compare `reduced` with itself in f32.
        reduced: the bundle to evaluate, which runs in each precision that its weights allow.

    Raises:
        ModelError: a bundle cannot be run.
    """
    manifest, _ = bundle.read_directory(reduced)
    precisions = list_precisions(manifest.precision)
    found = {precision: find_mentions(reduced, precision, sample.sentences) for precision in precisions}
    base = found.get("f32", set()) if original is None else find_mentions(original, "f32", sample.sentences)
    gold = None if sample.gold is None else join_gold_tags(sample.gold)
    return Scores(
        sentences=len(sample.sentences),
        mentions=len(base),
        original={} if gold is None else {"f32": compute_span_f1(base, gold)},
        reduced={} if gold is None else {name: compute_span_f1(mentions, gold) for name, mentions in found.items()},
        agreement={name: compute_span_f1(mentions, base) for name, mentions in found.items()},
    )


def find_mentions(directory: Path, precision: Precision, sentences: Sequence[Sequence[str]]) -> Mentions:
    """Return the mentions from `find_mentions_with_confidences` with decoding `argmax`, without their confidences."""
    return set(find_mentions_with_confidences(directory, precision, sentences))


def find_mentions_with_confidences(
    directory: Path, precision: Precision, sentences: Sequence[Sequence[str]], decoding: Decoding = "argmax"
) -> dict[Mention, float]:
    """Tag sentences with a bundle; return a dict from each mention to its confidence, without the manifest's scaling.

    Args:
        precision: the precision in which the bundle runs; all cores of this container are used.
        sentences: a list of tokens for each sentence.
        decoding: how tags are chosen: `argmax` for each token's most probable tag, `viterbi` for the best valid sequence.

    Raises:
        ModelError: the bundle cannot be run.
    """
    manifest, files = bundle.read_directory(directory)
    execution = Execution(precision, threads=hardware.count_cores(), decoding=decoding)
    tagger = Tagger.load(files, manifest, execution)
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    tags = tagger.tag([token for sentence in sentences for token in sentence], lengths)
    return _group_into_mentions(tagger.labels, tags.tags, lengths, tagger.scheme, tags.confidences)


def compute_span_f1(found: Mentions, expected: Mentions) -> float:
    """Return the F1 score of `found`, whose mentions are correct if they are in `expected`; 1 if both sets are empty."""
    if not found and not expected:
        return 1.0
    return 2 * len(found & expected) / (len(found) + len(expected))


def join_gold_tags(tags: Sequence[Sequence[str]]) -> Mentions:
    """Join the IOB2 tags of each sentence's tokens into mentions, and return the set of mentions."""
    labels = ("O", *sorted({tag for sentence in tags for tag in sentence} - {"O"}))
    number = {label: i for i, label in enumerate(labels)}
    flat = np.array([number[tag] for sentence in tags for tag in sentence], np.int16)
    lengths = np.array([len(sentence) for sentence in tags], np.int64)
    return set(_group_into_mentions(labels, flat, lengths, "iob2", np.ones(len(flat), np.float32)))


def _group_into_mentions(
    labels: Sequence[str],
    tags: NDArray[np.int16],
    lengths: NDArray[np.int64],
    scheme_name: bundle.Scheme,
    confidences: NDArray[np.float32],
) -> dict[Mention, float]:
    """Group consecutive tags into mentions, and return a dict from each mention to the mean confidence of its tags.

    Args:
        labels: the model's tags, such as O, B-PER and I-PER.
        tags: for each token, sentence after sentence, the index of its tag in `labels`.
        lengths: number of tokens of each sentence.
        scheme_name: `iob2` or `iob1`, the tagging scheme, which says how tags join to mentions.
        confidences: for each token, the probability of its tag.
    """
    scheme = TagScheme(labels, splits_kinds=scheme_name == "iob1")
    sentence_of = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    spans = scheme.join_tags_to_spans(tags, confidences, sentence_of)
    return {
        (int(sentence_of[first]), int(first - begins[first]), int(last - begins[first]), scheme.kinds[kind]): float(mean)
        for first, last, kind, mean in zip(spans.begin, spans.end, spans.kinds, spans.confidences, strict=True)
    }


@dataclass(frozen=True)
class Sample:
    """A sample of sentences.

    sentences: the tokens of each sentence; each sentence has at least one token.
    gold: the correct tags of each sentence, or None if any sentence has no tags.
    """

    sentences: list[list[str]]
    gold: list[list[str]] | None

    def select_evenly(self, count: int) -> Sample:
        """Return a sample of at most `count` of these sentences, evenly spaced."""
        size = len(self.sentences)
        chosen = [number * size // count for number in range(count)] if size > count else range(size)
        return Sample([self.sentences[i] for i in chosen], None if self.gold is None else [self.gold[i] for i in chosen])

    def exclude(self, other: Sample) -> Sample:
        """Return this sample without the sentences that are also in the other sample."""
        theirs = {tuple(sentence) for sentence in other.sentences}
        kept = [i for i, sentence in enumerate(self.sentences) if tuple(sentence) not in theirs]
        return Sample([self.sentences[i] for i in kept], None if self.gold is None else [self.gold[i] for i in kept])


def read_sample(path: Path, option: str) -> Sample:
    """Read the sentences of a table, and also their gold (correct) tags if every row has tags.

    A table with a `tokens` column (lists of strings) has one sentence per row, and may have a `tags` column (an IOB2 tag per
    token). Any other table needs a `text` column, or exactly one column of strings; `split_text` splits these texts into
    sentences and words. Reading stops after the row that brings the number of sentences to MAX_SENTENCES or more.

    Args:
        path: a Parquet file or directory, a Delta table's directory, or a file of JSON lines (*.jsonl, *.json).
        option: the command-line option that names the table, for error messages.

    Raises:
        SettingsError: the table does not exist, cannot be read (Delta needs the package deltalake), or contains no sentence;
            or it has none of the columns that are described above, or other values in `tokens` or `tags`.
    """
    if not path.exists():
        raise SettingsError(f"{option}: {path} does not exist; check the path.")
    try:
        rows = _read_json_rows(path) if path.suffix in (".jsonl", ".json") else _read_table_rows(path)
        found = _collect_sentences(rows, path, option)
        "".join(itertools.chain(*found.sentences)).encode("utf8")  # ValueError for a lone surrogate
    except (pa.ArrowException, OSError, RecursionError, ValueError) as error:
        raise SettingsError(f"{option}: {path} cannot be read as a Parquet, Delta or JSON-lines table.") from error
    if not found.sentences:
        raise SettingsError(f"{option}: {path} contains no sentence; use another table.")
    return found


def _collect_sentences(rows: Iterator[dict[str, Any]], path: Path, option: str) -> Sample:
    """Return the sentences in table rows, with gold tags if every row has tokens and tags; stop at MAX_SENTENCES or more.

    The `tokens` of a row are one sentence, left out if empty. A row without `tokens` has a text, which is split into
    sentences. If any row has no `tokens`, there are no gold tags. Invalid rows raise SettingsError with `path` and `option`.
    """
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
            sentences += split_text(_select_text(row, path, option))
        if len(sentences) >= MAX_SENTENCES:
            break
    return Sample(sentences, gold if tagged else None)


def split_text(text: str) -> list[list[str]]:
    """Return the words of each sentence of a text; words after the first MAX_SENTENCE_WORDS of a sentence are dropped.

    A sentence ends at white space after . ! or ? and at a blank line; empty ones are left out. Punctuation counts as words.
    """
    found = (_WORD.findall(part)[:MAX_SENTENCE_WORDS] for part in _SENTENCE_END.split(text))
    return [words for words in found if words]


def _check_tokens(tokens: object, tags: object, path: Path, option: str) -> None:
    """Raise SettingsError unless `tokens` is a list of strings, and `tags` is None or a list of one string per token."""
    ok = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    if not ok:
        raise SettingsError(f"{option}: column tokens of {path} must be a list of strings in every row.")
    if tags is None:
        return
    if not isinstance(tags, list) or len(tags) != len(tokens) or not all(isinstance(tag, str) for tag in tags):  # type: ignore[arg-type]
        raise SettingsError(f"{option}: column tags of {path} must be a list with one tag for each token in every row.")


def _select_text(row: dict[str, Any], path: Path, option: str) -> str:
    """Return the text in a row's column `text` or, without this column, in the only column of strings; "" if not a string.

    Raise SettingsError if the row has no column `text`, and not exactly one column of strings.
    """
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if TEXT not in row and len(strings) != 1:
        raise SettingsError(f"{option}: {path} needs a column named `tokens` or `text`, or exactly one column of strings.")
    value = row[TEXT if TEXT in row else strings[0]]
    return value if isinstance(value, str) else ""


def _read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON object in each line of a file; skip blank lines, and raise ValueError if a line is anything else."""
    with path.open(encoding="utf8") as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is not a JSON object")
                yield row


def _read_table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of a Delta table, of a Parquet file, or of a directory of Parquet files."""
    found = _open_delta_table(path) if (path / "_delta_log").is_dir() else ds.dataset(path, format="parquet")
    return (row for batch in found.to_batches(batch_size=1024) for row in batch.to_pylist())


def _open_delta_table(path: Path) -> Any:
    """Return a Delta table as a PyArrow dataset; raise SettingsError without deltalake, ValueError if it is not readable."""
    try:
        from deltalake.exceptions import DeltaError  # noqa: PLC0415  - needed only if the sample is a Delta table
    except ImportError as error:
        raise SettingsError(f"A sample that is a Delta table needs {installation.PREPARE}.") from error
    from entitymill.tables.runs_without_spark import open_dataset  # noqa: PLC0415  - imports Spark

    try:
        return open_dataset(path)
    except DeltaError as error:
        raise ValueError("not a Delta table") from error
