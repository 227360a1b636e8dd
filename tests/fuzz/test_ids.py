"""Test that Spark SQL takes odd ids and words as they are: each id is one document, and each word one literal or name."""

from __future__ import annotations

import random
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from entitymill.run.extraction import SMALL_QUERIES
from entitymill.spark.private_session import open_private_session, override_conf
from entitymill.spark.sql_text import quote_literal, quote_part, type_to_sql
from entitymill.tables.output_tables import WRITE_CONFS
from fuzzing import attempt, report, tries
from stages.conftest import Writing, tables_at

PIECES = (
    *("{", "}", "{source}", "{view}", "{0}", "{source.sparkSession.version}", "${", "${spark.app.name}", "$", ":first"),
    *("?", "'", '"', "`", "\\", "\\\\", "\\u0027", "\\'", "''", "--", "/*", "*/", ";", "%", "_", "*", "[a]", "../", "/"),
    *("\0", "\n", "\r", "\t", "\x1a", "\u2028", "\ufeff", "\u202e", "é", "e\u0301", "😀", "a", "A", " ", "null", "x" * 500),
)


def odd_id(draw: random.Random) -> str:
    return "".join(draw.choices(PIECES, k=draw.choice([1, 2, 3, 9, 40])))


def test_any_id_is_one_document_in_small_and_in_large_units(spark: SparkSession, tmp_path: Path) -> None:
    with (
        attempt("ids", 0) as draw,
        override_conf(spark, {**WRITE_CONFS, **SMALL_QUERIES, "spark.sql.shuffle.partitions": "1"}),
    ):
        ids = sorted({odd_id(draw) for _ in range(tries(200, 5000))})
        writing = Writing(tables_at(spark, tmp_path))
        writing.publish(*((one, "Anna Berlin") for one in ids), known=False)
        hostile = [one for one in ids if "{" in one or "'" in one]
        first, last = hostile[len(hostile) // 5], hostile[-len(hostile) // 5]  # the SQL statement contains these two ids
        many, some = [one for one in ids if first <= one <= last], draw.sample(ids, min(len(ids) // 2, 900))
        for chosen, few in ((many, False), (some, True)):
            writing.publish(*((one, "Paris Anna Zoe") for one in chosen), known=True, few=few)
            for table, times in (("documents", 1), ("entities", None)):
                held = [row["doc_id"] for row in writing.tables.read(table).select("doc_id").collect()]
                assert sorted(set(held)) == sorted(ids) if times is None else sorted(held) == sorted(ids), table
        gone = draw.sample(ids, len(ids) // 3)
        writing.publish((ids[0], "Anna Berlin"), known=True, removed=tuple(set(gone) - {ids[0]}))
        held = [row["doc_id"] for row in writing.tables.read("documents").select("doc_id").collect()]
        assert sorted(held) == sorted({*ids} - {*gone} | {ids[0]})
    report("ids", ids=len(ids))


def test_spark_reads_each_word_as_it_is(spark: SparkSession) -> None:
    count = tries(2, 40)
    for number in range(count):
        with attempt("words in Spark", number) as draw:
            words = [odd_id(draw) for _ in range(100)]
            names = [f"{place} {odd_id(draw)}".replace("\0", "") for place in range(len(words))]
            # In names, only a run's session leaves ${variables} unchanged; in literals, every session does.
            assert list(spark.sql(f"SELECT {', '.join(map(quote_literal, words))}").collect()[0]) == words
            columns = ", ".join(
                f"{quote_literal(word)} AS {quote_part(name)}" for word, name in zip(words, names, strict=True)
            )
            with open_private_session(spark, "UTC", {}) as own:
                row = own.sql(f"SELECT {columns}").collect()[0]
            assert (list(row), row.__fields__) == (words, names)
            kind = T.StructType([T.StructField(name, T.ArrayType(T.StringType())) for name in names[:9]])
            assert T._parse_datatype_string(type_to_sql(kind)) == kind
    report("words in Spark", words=100 * count)
