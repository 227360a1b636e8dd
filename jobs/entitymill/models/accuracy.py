"""How far a model of lower precision departs from its original: both tag the same sentences, their mentions are compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from entitymill.models.table_sentences import Sample
from entitymill.recognition.mentions import TagScheme
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.execution_settings import Execution, Precision
from entitymill.recognition.tagger.inference import Tagger

Mentions = set[tuple[int, int, int, str]]
"""(sentence, first token, token after the last, label) of each."""


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
    manifest, _ = bundle.in_directory(reduced)
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
    manifest, files = bundle.in_directory(directory)
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
    scheme = TagScheme(labels, parts_kinds=how == "iob1")
    sentence_of = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    spans = scheme.spans(tags, np.ones(len(tags), np.float32), sentence_of)
    return {
        (int(sentence_of[first]), int(first - begins[first]), int(last - begins[first]), scheme.kinds[kind])
        for first, last, kind in zip(spans.first, spans.last, spans.kinds, strict=True)
    }
