"""Measure span F1 of bundles on running text, per label and precision: `python score.py DATA BUNDLE [BUNDLE ...]`.

Gold sentences are joined to text (`text.joined`), which goes through the whole recognition: sentences, tokens, tags and
trimming. A mention counts as correct if a gold mention has the same characters and the same label.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from documents import Document, evaluation_sets

import entitymill
from entitymill.recognition.tagger import bundle, list_precisions

DETECTOR = Path(__file__).parents[2] / "sentence_detector"
Placed = tuple[int, int, int, str]
"""The place of a mention: index of its document, begin and end in code points, and label."""


def found_mentions(tagger: entitymill.TextTagger, documents: list[Document]) -> dict[Placed, entitymill.Mention]:
    """Return a dict from the place of each mention that the job finds to the mention."""
    mentions = tagger([document.text for document in documents])
    return {(row, m.begin, m.end, m.label): m for row, several in enumerate(mentions) for m in several}


def gold(documents: list[Document]) -> set[Placed]:
    """Return the places of the gold mentions."""
    return {(row, *mention) for row, document in enumerate(documents) for mention in document.mentions}


def f1(wanted: set[Placed], mine: set[Placed]) -> float:
    """Return the span F1 of the mentions `mine`; `wanted` are the gold mentions."""
    return round(2 * len(wanted & mine) / max(1, len(wanted) + len(mine)), 4)


def scores(wanted: set[Placed], mine: set[Placed]) -> dict[str, float]:
    """Return F1, precision and recall of all mentions `mine`, and F1 of each label; `wanted` are the gold mentions."""
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
    """Return the mentions with a label."""
    return {mention for mention in mentions if mention[3] == label}


def score(tagger: entitymill.TextTagger, data: Path) -> dict[str, dict[str, float]]:
    """Return a dict from the name of each evaluation set to its scores."""
    result = {}
    for name, chosen in evaluation_sets(data).items():
        wanted, mine = gold(chosen.documents), set(found_mentions(tagger, chosen.documents))
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
    parser.add_argument("--decoding", choices=("viterbi", "argmax"), default="viterbi", help="how tags are chosen")
    parser.add_argument("--no-consistent-labels", action="store_true", help="let mentions spelled alike differ in label")
    parser.add_argument(
        "--detector", choices=("dl", "rules", "sentencex"), default="sentencex", help="the sentence detector"
    )
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), help="run only in this precision")
    parser.add_argument("--record", action="store_true", help="also write the scores into the bundles' manifests")
    options = parser.parse_args()
    for directory in options.bundles:
        manifest, _ = bundle.read_directory(directory)
        precisions = [options.precision] if options.precision else list_precisions(manifest.precision)
        recorded: dict[str, dict[str, float]] = {}
        for precision in precisions:
            tagger = entitymill.load(
                directory,
                detector=options.detector,
                detector_model=DETECTOR,
                precision=precision,
                trim=not options.no_trim,
                decoding=options.decoding,
                consistent_labels=not options.no_consistent_labels,
                threads=1,
            )
            measured = score(tagger, options.data)
            print(json.dumps({"weights": manifest.precision, "run in": precision, "scores": measured}), flush=True)
            for name, by_label in measured.items():
                recorded.setdefault(name, {})[precision] = by_label["all"]
        if options.record:
            bundle.update_manifest(directory, f1=recorded)


if __name__ == "__main__":
    main()
