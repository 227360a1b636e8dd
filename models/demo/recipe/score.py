"""Span F1 of bundles on running text, per label and precision: `python score.py DATA BUNDLE [BUNDLE ...]`.

Gold sentences become text (`text.joined`) and go through this job's own tokens, tagger and trimming; a mention counts if its
characters and its label are gold's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from documents import Document, evaluation_sets

from entitymill.recognition import offsets, tokens
from entitymill.recognition.mentions import TagScheme, trimmed
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.execution import Precision
from entitymill.recognition.tagger.inference import Tagger

Placed = tuple[int, int, int, str]
"""Document, begin, end, label."""


def found(tagger: Tagger, documents: list[Document], *, trim: bool = True) -> set[Placed]:
    """The mentions that this job finds, given gold's sentences."""
    texts = [document.text for document in documents]
    whole = offsets.read(pa.array(texts, pa.large_string()))
    segments = tokens.cut(whole, _sentence_begins(whole, documents))
    codes = np.stack([whole.code_points(segments.token_begin), whole.code_points(segments.token_end)])
    words = [whole.text[begin:end] for begin, end in codes.T.tolist()]
    tags = tagger.tag(words, segments.sentence_tokens)
    scheme = TagScheme(tagger.labels)
    spans = scheme.spans(tags.tags, tags.confidences, segments.sentence_of[tags.tokens])
    rows = whole.of(segments.token_begin[tags.tokens[spans.first]])
    shift = whole.code_points(whole.edges[:-1])[rows]
    begins = (codes[0][tags.tokens[spans.first]] - shift).tolist()
    ends = (codes[1][tags.tokens[spans.last - 1]] - shift).tolist()
    mentions = set()
    for row, begin, end, kind in zip(rows.tolist(), begins, ends, spans.kinds.tolist(), strict=True):
        front, back = trimmed(texts[row][begin:end]) if trim else (0, 0)
        mentions.add((row, begin + front, end - back, scheme.kinds[kind]))
    return mentions


def _sentence_begins(whole: offsets.Texts, documents: list[Document]) -> np.ndarray:
    """In units of the whole."""
    begins = []
    for document, edge in zip(documents, whole.edges[:-1].tolist(), strict=True):
        begins += [edge + offsets.utf16_length(document.text[:begin]) for begin in document.begins]
    return np.array(begins, np.int64)


def gold(documents: list[Document]) -> set[Placed]:
    """The mentions that annotators found."""
    return {(row, *mention) for row, document in enumerate(documents) for mention in document.mentions}


def f1(wanted: set[Placed], mine: set[Placed]) -> float:
    """Span F1."""
    return round(2 * len(wanted & mine) / max(1, len(wanted) + len(mine)), 4)


def scores(wanted: set[Placed], mine: set[Placed]) -> dict[str, float]:
    """F1 of all and of each label; precision and recall of all."""
    both = len(wanted & mine)
    result = {
        "all": f1(wanted, mine),
        "precision": round(both / max(1, len(mine)), 4),
        "recall": round(both / len(wanted), 4),
    }
    for label in sorted({mention[3] for mention in wanted}):
        result[label] = f1(_of(wanted, label), _of(mine, label))
    return result


def _of(mentions: Iterable[Placed], label: str) -> set[Placed]:
    return {mention for mention in mentions if mention[3] == label}


def score(tagger: Tagger, data: Path, *, trim: bool = True) -> dict[str, dict[str, float]]:
    """Set -> scores."""
    result = {}
    for name, chosen in evaluation_sets(data).items():
        wanted, mine = gold(chosen.documents), found(tagger, chosen.documents, trim=trim)
        if not chosen.with_misc:
            wanted, mine = wanted - _of(wanted, "MISC"), mine - _of(mine, "MISC")
        result[name] = scores(wanted, mine)
    return result


def main() -> None:
    """Print one JSON line per bundle and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--no-trim", action="store_true", help="score the tagger's spans as they are")
    parser.add_argument("--record", action="store_true", help="also write the scores into the bundles' manifests")
    options = parser.parse_args()
    for directory in options.bundles:
        manifest, files = bundle.in_directory(directory)
        precisions: list[Precision] = ["f32", "bf16", "int8"] if manifest.precision == "int8" else ["f32", "bf16"]
        recorded: dict[str, dict[str, float]] = {}
        for precision in precisions:
            measured = score(Tagger.load(files, manifest, precision), options.data, trim=not options.no_trim)
            print(json.dumps({"weights": manifest.precision, "run in": precision, "scores": measured}), flush=True)
            for name, by_label in measured.items():
                recorded.setdefault(name, {})[precision] = by_label["all"]
        if options.record:
            bundle.write_manifest(directory, {**manifest.model_dump(exclude={"files"}), "f1": recorded})


if __name__ == "__main__":
    main()
