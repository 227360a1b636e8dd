"""Measure exact-span F1 of the sentence detectors, without Spark or a JVM: `python score.py GOLD.jsonl [MODEL ...]`.

GOLD has one document per line, `{"text", "sents": [[begin, end], …]}`, with offsets in code points. As in the job, a
sentence extends from the begin of its first token to the end of its last token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import pyarrow as pa

from entitymill.recognition import offsets, sentences, tokens
from entitymill.recognition.sentences import Detector

Spans = set[tuple[int, int, int]]


def spans(texts: Sequence[str], detector: Detector) -> tuple[Spans, float]:
    """Return index of the document, begin and end of every sentence found, and the CPU seconds that this took."""
    began = process_time()
    whole = offsets.read_texts(pa.array(texts, pa.large_string()))
    found = tokens.tokenize(whole, detector.find_breaks(whole))
    spent = process_time() - began
    document = whole.find_texts(found.sentence_begin)
    starts = whole.to_code_points(whole.edges)[document]
    begin, end = whole.to_code_points(found.sentence_begin) - starts, whole.to_code_points(found.sentence_end) - starts
    return set(zip(document.tolist(), begin.tolist(), end.tolist(), strict=True)), spent


def main() -> None:
    """Print one line with the scores of each sentence detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gold", type=Path)
    parser.add_argument("models", nargs="*", type=Path, help="saved SentenceDetectorDLModels")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.gold.read_text(encoding="utf8").splitlines()]
    texts = [line["text"] for line in lines]
    gold = {(number, begin, end) for number, line in enumerate(lines) for begin, end in line["sents"]}
    detectors = {"sentencex": sentences.open_detector("sentencex", {}), "rules": sentences.open_detector("rules", {})}
    for model in options.models:
        detectors[str(model)] = sentences.open_detector("dl", sentences.find_detector_files(model))
    for name, detector in detectors.items():
        found, seconds = spans(texts, detector)
        hit = len(gold & found)
        precision, recall, f1 = hit / len(found), hit / len(gold), 2 * hit / (len(found) + len(gold))
        each = 1000 * seconds / len(found)
        print(f"{name}: precision {precision:.4f} recall {recall:.4f} F1 {f1:.4f}, {each:.3f} CPU-ms a sentence")


if __name__ == "__main__":
    main()
