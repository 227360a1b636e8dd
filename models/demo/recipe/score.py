"""Span F1 of bundles on the evaluation sets, per label and precision: `python score.py DATA BUNDLE [BUNDLE ...]`.

Run with the product's own tagger, so the figures are what a job gives on gold tokens and sentences.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from corpus import evaluation_sets

from entitymill.recognition.mentions import TagScheme
from entitymill.recognition.tagger import bundle
from entitymill.recognition.tagger.inference import Tagger
from entitymill.recognition.tagger.execution import Precision

Mentions = set[tuple[int, int, str]]


def mentions(scheme: TagScheme, tags: list[int], sentence_of: np.ndarray, *, with_misc: bool) -> Mentions:
    """(first token, last token, label) of every span."""
    spans = scheme.spans(np.array(tags, np.int16), np.ones(len(tags), np.float32), sentence_of)
    found = zip(spans.first.tolist(), spans.last.tolist(), (scheme.kinds[k] for k in spans.kinds), strict=True)
    return {span for span in found if with_misc or span[2] != "MISC"}


def f1(gold: Mentions, found: Mentions) -> float:
    """Span F1."""
    return round(2 * len(gold & found) / max(1, len(gold) + len(found)), 4)


def score(tagger: Tagger, data: Path) -> dict[str, dict[str, float]]:
    """Set -> "all" or label -> F1."""
    scheme = TagScheme(tagger.labels)
    result = {}
    for name, (sentences, with_misc) in evaluation_sets(data).items():
        lengths = np.array([len(tokens) for tokens, _ in sentences])
        sentence_of = np.repeat(np.arange(len(sentences)), lengths)
        tokens = [token for words, _ in sentences for token in words]
        gold_tags = [tagger.labels.index(tag) for _, tags in sentences for tag in tags]
        gold = mentions(scheme, gold_tags, sentence_of, with_misc=with_misc)
        found = mentions(scheme, tagger.tag(tokens, lengths).tags.tolist(), sentence_of, with_misc=with_misc)
        labels = sorted(Counter(label for *_, label in gold))
        result[name] = {"all": f1(gold, found)} | {
            label: f1({s for s in gold if s[2] == label}, {s for s in found if s[2] == label}) for label in labels
        }
    return result


def main() -> None:
    """Print one JSON line per bundle and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--record", action="store_true", help="also write the scores into the bundles' manifests")
    options = parser.parse_args()
    for directory in options.bundles:
        manifest, files = bundle.in_directory(directory)
        precisions: list[Precision] = ["f32", "bf16", "int8"] if manifest.precision == "int8" else ["f32", "bf16"]
        recorded: dict[str, dict[str, float]] = {}
        for precision in precisions:
            scores = score(Tagger.load(files, manifest, precision), options.data)
            print(json.dumps({"weights": manifest.precision, "run in": precision, "f1": scores}), flush=True)
            for name, by_label in scores.items():
                recorded.setdefault(name, {})[precision] = by_label["all"]
        if options.record:
            bundle.write_manifest(directory, {**manifest.model_dump(exclude={"files"}), "f1": recorded})


if __name__ == "__main__":
    main()
