"""Measure span F1 of Stanford CoreNLP on the same text as score.py: `python score_corenlp.py DATA JARS`.

JARS is a directory with the jars of edu.stanford.nlp:stanford-corenlp and of its classifier `models`. CoreNLP finds
sentences, tokens and mentions with its default models, without numbers, times and fine-grained types.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from documents import Document, EvaluationSet, evaluation_sets
from score import Placed, gold, scores

from entitymill.recognition.offsets import utf16_length

LABELS = {"PERSON": "PER", "ORGANIZATION": "ORG", "LOCATION": "LOC", "MISC": "MISC"}
OPTIONS = (
    *("-annotators", "tokenize,ssplit,pos,lemma,ner", "-ner.statisticalOnly", "true", "-ner.useSUTime", "false"),
    *("-ner.applyNumericClassifiers", "false", "-ner.applyFineGrained", "false", "-encoding", "utf8"),
    *("-outputFormat", "json", "-threads", "1"),
)


def run_corenlp(files: list[Path], jars: Path, out: Path) -> None:
    """Annotate text files with CoreNLP, and write the results to the directory `out`, as NAME.json."""
    listed = out / "files.txt"
    listed.write_text("\n".join(map(str, files)) + "\n", encoding="utf8")
    program = ["java", "-Xmx3g", "-cp", f"{jars}/*", "edu.stanford.nlp.pipeline.StanfordCoreNLP"]
    command = [*program, *OPTIONS, "-outputDirectory", str(out), "-filelist", str(listed)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # the jars are chosen by the caller


def found_mentions(chosen: EvaluationSet, results: list[Path]) -> set[Placed]:
    """Return the mentions in CoreNLP's result files for the documents of a set, with offsets in code points."""
    found = set()
    for number, (document, path) in enumerate(zip(chosen.documents, results, strict=True)):
        places = _code_points(document)
        for sentence in json.loads(path.read_text(encoding="utf8"))["sentences"]:
            for mention in sentence["entitymentions"]:
                if mention["ner"] in LABELS:
                    begin, end = (places[mention[f"characterOffset{edge}"]] for edge in ("Begin", "End"))
                    found.add((number, begin, end, LABELS[mention["ner"]]))
    return found


def _code_points(document: Document) -> dict[int, int]:
    """Return a dict from each offset in UTF-16 code units, as Java counts, to the offset in code points."""
    places, at = {0: 0}, 0
    for number, character in enumerate(document.text, 1):
        at += utf16_length(character)
        places[at] = number
    return places


def main() -> None:
    """Print one line of JSON with the scores of each evaluation set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("jars", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sets = evaluation_sets(options.data)
        files: dict[str, list[Path]] = {}
        for place, (name, chosen) in enumerate(sets.items()):
            files[name] = [Path(scratch) / f"{place}-{number:05d}.txt" for number in range(len(chosen.documents))]
            for path, document in zip(files[name], chosen.documents, strict=True):
                path.write_text(document.text, encoding="utf8", newline="")
        out = Path(scratch) / "out"
        out.mkdir()
        run_corenlp([path for several in files.values() for path in several], options.jars, out)
        for name, chosen in sets.items():
            wanted = gold(chosen.documents)
            mine = found_mentions(chosen, [out / f"{path.name}.json" for path in files[name]])
            if not chosen.with_misc:
                wanted, mine = ({place for place in places if place[3] != "MISC"} for places in (wanted, mine))
            print(json.dumps({"set": name, "scores": scores(wanted, mine)}), flush=True)


if __name__ == "__main__":
    main()
