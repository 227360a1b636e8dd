"""Write segments.jsonl.gz: the sentences and tokens that Spark NLP 5.5.3 finds in a few thousand difficult texts.

Run this by hand, with Spark NLP's jars in build/jars-sparknlp: `python tests/golden/make_segments.py`. Each line is [text,
deep, rules]; the last two are the results with the detectors dl and rules. A result is [sentences, tokens], each a flat list
of begin, end, begin, end … in UTF-16 units, with exclusive ends. `rules` is null if Spark NLP may miscount
(docs/migration.md). No code of `entitymill.recognition` is used.
"""

import gzip
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "jobs"), str(HERE.parent)]

from difficult_texts import confuses_spark_nlp, generate_texts  # noqa: E402
from entitymill.settings import sections  # noqa: E402
from entitymill.spark.session import open_session  # noqa: E402
from hostile_texts import HOSTILE_TEXTS, SAMPLE  # noqa: E402
from jvm_segments import by_spark_nlp  # noqa: E402
from own_segments import Segments  # noqa: E402

TEXTS, SPACED = 2200, 400
SHORTENED = 160
KNOWN = [
    "\x1e\n", "\x01", "\x01\x02", " \x01 ", "\x01\n\x02", "\x01. \x02", "\x00\x01.\x02.", "a.\x01\x02", "\x1f;\x1e;",
    "\u2187U.S.A.F. A", "Zu\u0732U.S.A. x", "\u0301U.S.A. B", "²U.S. A", "_U.S. A", "e\U0001e000U.S. A",
]  # fmt: skip
"""Texts that this project once split differently from Spark NLP."""


def spaced(count: int) -> Iterator[str]:
    """Yield texts with runs of blanks near a punctuation mark, about as long as the context of the detector's network."""
    draw = random.Random(3)  # noqa: S311  # seeded, not secret
    for _ in range(count):
        word = partial(draw.choice, ["A", "I", "He", "a", "5", '"I', "b", "It"])
        before, mark = draw.choice(["he", "o", "Dr", "5", "is a", "to X"]), draw.choice([". ", "? ", "\n", ".", "; "])
        blanks = draw.choice([" ", "\n"]) * draw.randint(8, 17)
        yield draw.choice([f"{before}{mark}{word()}{blanks}{word()} then", f"{before}{blanks}{word()}{mark}{word()} then"])


def main(jars: str) -> None:
    texts = [
        *KNOWN,
        *SAMPLE,
        *(text[:SHORTENED] for text in HOSTILE_TEXTS.values()),
        *spaced(SPACED),
        *generate_texts(TEXTS, seed=2),
    ]
    spark = open_session(
        sections.SparkSettings(master="local[1]", jars=jars, conf={"spark.driver.memory": "2g"}), "golden", sparknlp=True
    )
    found = {}
    for kind in ("dl", "rules"):
        with tempfile.TemporaryDirectory() as scratch:
            found[kind] = by_spark_nlp(spark, kind, texts, Path(scratch))
    rows = [
        [text, flat(deep), None if confuses_spark_nlp(text) else flat(rules)]
        for text, deep, rules in zip(texts, found["dl"], found["rules"], strict=True)
    ]
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    (HERE / "segments.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    spark.stop()


def flat(cut: Segments) -> list[list[int]]:
    """Return the sentences and the tokens, each as a flat list of begin, end, begin, end …"""
    return [list(itertools.chain.from_iterable(spans)) for spans in (cut.sentences, cut.tokens)]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "build/jars,build/jars-sparknlp")
