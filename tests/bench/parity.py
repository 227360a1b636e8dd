"""Check that recognition/ finds the same sentences and tokens in every text as Spark NLP does in the JVM.

`python tests/bench/parity.py --texts FILE… --fuzz 50000` prints a line of counts per detector. Its exit code is 1 if any
text differs. FILE is a JSON Lines or Parquet file with a `text` column. Spark NLP's time grows with the square of a text's
length, so texts longer than --cap are split at blank lines. With --join, consecutive texts are joined to long texts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "jobs"), str(ROOT / "tests")]

from difficult_texts import confuses_spark_nlp, generate_texts  # noqa: E402
from entitymill.recognition import sentences  # noqa: E402
from entitymill.settings import sections  # noqa: E402
from entitymill.spark.session import open_session  # noqa: E402
from jvm_segments import by_spark_nlp  # noqa: E402
from own_segments import Segments, segment_texts  # noqa: E402
from small_queries import SMALL_QUERIES  # noqa: E402

AT_ONCE = 20_000
SHOWN = 5
DETECTORS: tuple[sentences.DetectorKind, ...] = ("dl", "rules")


def main(given: Sequence[str] | None = None) -> int:
    """Compare all texts and return 1 if any differs."""
    asked = arguments(given)
    chosen = sections.SparkSettings(master="local[1]", jars=asked.jars, conf={**SMALL_QUERIES, "spark.driver.memory": "2g"})
    spark = open_session(chosen, "parity", sparknlp=True)
    differ = 0
    for kind in asked.detectors:
        texts = gathered(asked)
        began = time.monotonic()
        line, found = compared(spark, kind, texts)
        differ += found
        print(f"{kind}: {line}; {time.monotonic() - began:.0f} s", flush=True)
    spark.stop()
    return 1 if differ else 0


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="*", default=[], type=Path, metavar="FILE")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="number of random texts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cap", type=int, default=20_000, metavar="CHARS")
    parser.add_argument(
        "--join", type=int, default=0, metavar="CHARS", help="join texts until they have this many characters"
    )
    parser.add_argument("--limit", type=int, help="maximum number of texts of each file")
    parser.add_argument("--detectors", nargs="*", default=DETECTORS, choices=DETECTORS)
    parser.add_argument("--jars", default=f"{ROOT}/build/jars,{ROOT}/build/jars-sparknlp")
    parser.add_argument("--smoke", action="store_true", help="run for seconds, on a few speeches and random texts")
    asked = parser.parse_args(given)
    if asked.smoke:
        asked.texts, asked.limit, asked.fuzz = [ROOT / "data" / "state_union.parquet"], 3, 300
    return asked


def gathered(asked: argparse.Namespace) -> Iterator[str]:
    """Yield all texts."""
    for file in asked.texts:
        texts = list(capped(read(file), asked.cap))
        texts = list(joined(texts, asked.join)) if asked.join else texts
        yield from texts[: asked.limit]
    yield from generate_texts(asked.fuzz, asked.seed)


def read(file: Path) -> list[str]:
    """Return the texts of a file."""
    if file.suffix == ".parquet":
        return pq.read_table(file, columns=["text"])["text"].to_pylist()
    with file.open(encoding="utf8") as lines:
        return [json.loads(line)["text"] for line in lines]


def capped(texts: Iterable[str], most: int) -> Iterator[str]:
    """Yield texts of at most `most` characters; longer texts are split, at blank lines if possible."""
    for text in texts:
        parts = [text] if len(text) <= most else re.split(r"(?<=\n)\s*\n", text)
        for part in parts:
            yield from (part[at : at + most] for at in range(0, len(part), most))


def joined(texts: Iterable[str], least: int) -> Iterator[str]:
    """Yield texts of at least `least` characters, each joined from consecutive texts."""
    held: list[str] = []
    for text in texts:
        held.append(text)
        if sum(map(len, held)) >= least:
            yield "\n\n".join(held)
            held = []


def compared(spark: SparkSession, kind: sentences.DetectorKind, texts: Iterable[str]) -> tuple[str, int]:
    """Compare all texts in batches; return a line of counts, and the number of texts that differ.

    Texts in which Spark NLP's rules may miscount are not compared, but counted separately. If a text differs, Spark NLP
    segments it again, because its network does not always give the same result.
    """
    detector = sentences.open_detector(kind, sentences.find_detector_files(ROOT / "models" / "sentence_detector"))
    counts = dict.fromkeys(("texts", "sentences", "tokens", "lost", "differ", "unsteady"), 0)
    for part in batches(texts):
        kept = [text for text in part if kind != "rules" or not confuses_spark_nlp(text)]
        counts["lost"] += len(part) - len(kept)
        counts["texts"] += len(kept)
        differing = []
        for text, wanted, found in zip(kept, cut(spark, kind, kept), segment_texts(detector, kept), strict=True):
            counts["sentences"] += len(wanted.sentences)
            counts["tokens"] += len(wanted.tokens)
            differing += [(text, wanted, found)] if found != wanted else []
        again = cut(spark, kind, [text for text, _, _ in differing]) if differing else []
        for (text, wanted, found), second in zip(differing, again, strict=True):
            counts["unsteady" if second != wanted else "differ"] += 1
            if second == wanted and counts["differ"] <= SHOWN:
                print(f"{kind}: {text!r}\n  Spark NLP: {wanted}\n  ours: {found}", flush=True)
            elif second != found:
                print(f"{kind}: {text!r}\n  Spark NLP: {wanted}, then: {second}\n  ours: {found}", flush=True)
    line = "{sentences:,} sentences, {tokens:,} tokens of {texts:,} texts: {differ:,} differ".format(**counts)
    if counts["unsteady"]:
        line += f"; of {counts['unsteady']:,} Spark NLP gave another answer the second time"
    if counts["lost"]:
        line += f"; {counts['lost']:,} more, that Spark NLP may lose count of, are left out"
    return line, counts["differ"]


def cut(spark: SparkSession, kind: sentences.DetectorKind, texts: list[str]) -> list[Segments]:
    """Return the segments that Spark NLP finds."""
    with tempfile.TemporaryDirectory() as scratch:
        return by_spark_nlp(spark, kind, texts, Path(scratch))


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield batches of AT_ONCE texts."""
    held: list[str] = []
    for text in texts:
        held.append(text)
        if len(held) == AT_ONCE:
            yield held
            held = []
    if held:
        yield held


if __name__ == "__main__":
    sys.exit(main())
