"""What an incremental run costs as its source grows: `python tests/bench/growth.py [--rows 10000 100000 1000000]`.

No model is in the loop: a stub tagger, made of Spark's own functions, finds the first two words of every document. What is
left is what the job itself does: finding out what changed, and changing the tables.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import pyarrow.parquet as pq
import sessions
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from texts import ROOT

from entitymill import extraction, schemas, settings
from entitymill.engines.engine import Engine
from entitymill.extraction import extract
from entitymill.source import open_source
from entitymill.summary import Summary

SHARE = 0.01


def stub_tagger(documents: DataFrame) -> DataFrame:
    """schemas.RECOGNISED with two mentions a document, without a model."""
    words = F.split("text", " ", 3)

    def mention(begin: Column, entity: Column, label: str) -> Column:
        end = begin + F.length(entity)
        name = F.coalesce(F.format_string("%s:%d-%d", "doc_id", begin, end), F.lit(""))
        values = {
            "mention_id": name, "sentence_id": F.lit(0), "sentence_begin": F.lit(0), "sentence_end": F.col("chars"),
            "begin": begin, "end": end, "entity": entity, "label": F.lit(label), "confidence": F.lit(0.9),
            "token_count": F.lit(1),
        }  # fmt: skip
        fields = schemas.MENTIONS.elementType.fields  # type: ignore[attr-defined]
        return F.struct(*(values[field.name].cast(field.dataType).alias(field.name) for field in fields))

    first, second = words[0], words[1]
    found = F.array(mention(F.lit(0), first, "PER"), mention(F.length(first) + 1, second, "LOC"))
    values = {
        "doc_id": F.coalesce("doc_id", F.lit("")), "text_hash": F.coalesce("text_hash", F.lit("")),
        "chars": F.col("chars"), "sentences": F.lit(1), "tokens": F.lit(2), "split_sentences": F.lit(0),
        "encoding_seconds": F.lit(0.0), "inference_seconds": F.lit(0.0),
    }  # fmt: skip
    # Not cast: what is inside would be nullable.
    whole = {"mentions": found}
    columns = (whole.get(f.name, values.get(f.name, F.lit(None)).cast(f.dataType)).alias(f.name) for f in schemas.RECOGNISED)
    return documents.select(*columns)


def open_stub(spark: SparkSession, loaded: settings.Settings) -> Engine:
    """In the place of engine.open_engine."""
    return Engine("stub", "stub", lambda: stub_tagger)


def texts(spark: SparkSession, rows: int, chars: int, salt: str = "") -> DataFrame:
    """Ids, and different texts of so many characters."""
    speech = " ".join(pq.read_table(ROOT / "data" / "state_union.parquet")["text"].to_pylist())
    body = F.lit(speech[: 2 * chars]).substr((F.col("id") % chars + 1).cast("int"), F.lit(chars - 30))
    name = F.format_string("Person%d City%d ", "id", F.pmod(F.xxhash64("id"), F.lit(1000)))
    return spark.range(rows).select(
        F.format_string("doc-%09d", "id").alias("id"), F.concat(name, F.lit(salt), body).alias("text")
    )


def hash_all(spark: SparkSession, loaded: settings.Settings) -> None:
    """Nothing but reading and hashing: what no comparison of texts can do without."""
    rows = open_source(spark, loaded.source).rows
    rows.select(F.sha2("text", 256).alias("hash")).agg(F.min("hash")).collect()


def live_heap(spark: SparkSession) -> float:
    """Megabytes that the one JVM, driver and executor, holds on to after a collection."""
    jvm: Any = spark.sparkContext._jvm
    for _ in range(3):  # what one collection finds unused, Spark lets go a moment later
        jvm.System.gc()
        time.sleep(1)
    runtime = jvm.Runtime.getRuntime()
    return float(runtime.totalMemory() - runtime.freeMemory()) / 1e6


def measure(spark: SparkSession, directory: Path, rows: int, chars: int, repeats: int) -> None:
    """Print one block for a table of so many rows."""
    source = f"{directory}/source-{rows}"
    writer = texts(spark, rows, chars).write.format("delta").option("delta.enableChangeDataFeed", "true")
    writer.save(source)
    options = [f"source.path={source}", f"output.path={directory}/out-{rows}", "limits.unit_rows=250000"]
    loaded = settings.load(None, options, {})
    salts = itertools.count()

    def run(mode: str) -> Summary:
        summary = extract(spark, loaded)
        assert summary.mode == mode, (summary.mode, mode)
        return summary

    def change() -> None:
        salt = f"salt{next(salts)} "
        changed = texts(spark, rows, chars, salt).where(F.pmod(F.xxhash64("id"), F.lit(round(1 / SHARE))) == 0)
        merge = DeltaTable.forPath(spark, source).alias("t").merge(changed.alias("s"), "t.id = s.id")
        merge.whenMatchedUpdateAll().execute()

    def rewrite() -> None:
        spark.read.format("delta").load(source).write.format("delta").mode("overwrite").option("dataChange", "true").save(
            source
        )
        spark.sql(f"ALTER TABLE delta.`{source}` SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')")

    def several(name: str, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> None:
        spent = []
        for _ in range(repeats):
            before()
            spent.append(machine.spend(work))
        print(machine.line(name, spent, rows, "rows"), flush=True)

    print(f"{rows:,} rows of {chars:,} characters", flush=True)
    print(machine.line("first run", [machine.spend(lambda: run("first"))], rows, "rows"), flush=True)
    several("reading and hashing alone", lambda: hash_all(spark, loaded))
    several("nothing to do", lambda: run("none"))
    several(f"{SHARE:.0%} changed, by the change feed", lambda: run("feed"), change)
    several("nothing differs, all compared", lambda: run("compare"), rewrite)
    print(f"  {live_heap(spark):,.0f} MB of the heap in use after a collection", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one block per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--chars", type=int, default=1_500, help="of each text: a short news article")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="whether it runs at all, in seconds")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rows, options.repeats = [200], 1
    print(machine.describe())
    spark = sessions.open_bench("3g")
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(extraction, "open_engine", open_stub):
        if not options.smoke:
            measure(spark, Path(scratch) / "warm", 1000, options.chars, 2)
        for rows in options.rows:
            measure(spark, Path(scratch), rows, options.chars, options.repeats)


if __name__ == "__main__":
    main()
