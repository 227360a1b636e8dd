"""Measure F1 of both encodings with the same weights: `python tests/bench/encoding_scores.py FILE.tsv …`.

FILE has one `token<TAB>tag` per line, with IOB2 tags, and a blank line between sentences. Five sentences form a document,
joined to natural text (models/demo/recipe/text.py). For the second pair of columns, a `;` replaces the full stop at the end
of each sentence. The five sentences then form one long sentence, as in transcripts and lists. After 126 pieces, the encoding
sparknlp tags nothing, but the encoding complete continues in windows.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import sessions
import texts
from pyspark.sql import SparkSession

from entitymill.commands import evaluate
from entitymill.run.extraction import extract

SENTENCES_IN_DOCUMENT = 5
SMOKE = "The\tO\nsenator\tO\nmet\tO\nAnna\tB-PER\nBell\tI-PER\nin\tO\nParis\tB-LOC\n.\tO\n\n" * 6
Tagged = list[tuple[str, str]]
Gold = tuple[str, int, int, str]


def _recipe(name: str) -> ModuleType:
    """Import a module of the demo model's recipe, which is a folder of scripts and not a package."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", texts.ROOT / f"models/demo/recipe/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


text = _recipe("text")


def sentences(file: Path) -> list[Tagged]:
    """Return (token, tag) pairs for every sentence."""
    blocks = re.split(r"\n\s*\n", file.read_text(encoding="utf8").strip())
    lines = ([line.split("\t") for line in block.splitlines() if "\t" in line] for block in blocks)
    return [[(token, tag) for token, tag in block] for block in lines]


def document(doc_id: str, parts: list[Tagged], *, run_on: bool) -> tuple[str, list[Gold]]:
    """Join some sentences to a text; return the text and its gold mentions, with offsets in code points."""
    if run_on:
        parts = [[*part[:-1], (";", "O")] if part[-1][0] in ".!?" else part for part in parts]
    written = ""
    gold: list[Gold] = []
    for part in parts:
        sentence = text.joined([token for token, _ in part])
        begin = len(written) + bool(written)
        gold += [(doc_id, begin + b, begin + e, kind) for b, e, kind in text.mentions(sentence, [tag for _, tag in part])]
        written = f"{written} {sentence.text}" if written else sentence.text
    return written, gold


def score(spark: SparkSession, file: Path, encoding: str, scratch: Path, *, run_on: bool) -> float:
    """Return micro F1 of one run; labels that the gold file does not have are left out."""
    tagged = sentences(file)
    groups = [tagged[i : i + SENTENCES_IN_DOCUMENT] for i in range(0, len(tagged), SENTENCES_IN_DOCUMENT)]
    made = [document(str(i), group, run_on=run_on) for i, group in enumerate(groups)]
    table = pa.table({"id": [str(i) for i in range(len(made))], "text": [written for written, _ in made]})
    pq.write_table(table, scratch / "texts.parquet")
    gold = spark.createDataFrame([g for _, mentions in made for g in mentions], ", ".join(GOLD_COLUMNS))
    overrides = ["source.format=parquet", f"source.path={scratch}/texts.parquet", f"output.path={scratch}/out"]
    # The defaults of these settings depend on the encoding. Only the input of the model should differ.
    alike = ["mentions.trim=true", "mentions.decoding=argmax", "mentions.consistent_labels=false"]
    chosen = [f"model.path={texts.ROOT}/models/demo", f"recognition.encoding={encoding}", *alike]
    extract(spark, sessions.loaded(*sessions.SPARK_NLPS_DETECTOR, *overrides, *chosen))
    labels = [row.label for row in gold.select("label").distinct().collect()]
    entities = spark.read.format("delta").load(f"{scratch}/out/entities")
    return evaluate.evaluate(entities, gold, labels)[evaluate.ALL].f1


GOLD_COLUMNS = ("doc_id string", "begin int", "end int", "label string")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, only to see that it works")
    options = parser.parse_args(arguments)
    spark = sessions.open_bench()
    print(f"{'F1':40} sparknlp complete   run on: sparknlp complete")
    ways = [(run_on, encoding) for run_on in (False, True) for encoding in ("sparknlp", "complete")]
    with tempfile.TemporaryDirectory() as made:
        if options.smoke:
            options.files, ways = [Path(made) / "smoke.tsv"], ways[1:2]
            options.files[0].write_text(SMOKE, encoding="utf8")
        for file in options.files:
            found = []
            for run_on, encoding in ways:
                with tempfile.TemporaryDirectory() as scratch:
                    found.append(score(spark, file, encoding, Path(scratch), run_on=run_on))
            print(f"{'/'.join(file.parts[-2:]):40} {' '.join(f'{one:8.4f}' for one in found)}", flush=True)


if __name__ == "__main__":
    main()
