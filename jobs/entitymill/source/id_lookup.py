"""A look at the source for a few ids of which the change feed does not tell all; texts are read only where they must be."""

from __future__ import annotations

from contextlib import ExitStack

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.source import row_checks
from entitymill.source.outcomes import cache_on_disk
from entitymill.source.reader import Source

BROADCAST_IDS = 100_000
"""Ids that every executor gets, so that the source's rows are not shuffled."""


def look_up_rows(
    source: Source, ids: DataFrame, number: int, events: DataFrame, cached: ExitStack
) -> tuple[DataFrame, DataFrame]:
    """Find the rows that the source has of some ids.

    Args:
        ids: doc_id, each once, null among them; present: whether the latest commit put one row of it.
        number: of ids.
        events: doc_id, text and perhaps `passthrough` of the rows that the latest commits put.
        cached: gets what is cached.

    Returns:
        The rows as `row_checks.judge` returns them; without a text where the id is refused anyway. And those of them whose
        texts were read from the source, since no event holds them.
    """
    few = F.broadcast(ids) if number <= BROADCAST_IDS else ids
    same_id = F.col("s.doc_id").eqNullSafe(F.col("i.doc_id"))
    here = source.rows.select("doc_id").alias("s").join(few.alias("i"), same_id).select("s.doc_id", "i.present")
    counts = cache_on_disk(
        here.groupBy("doc_id").agg(F.count("*").alias("copies"), F.first("present").alias("present")), cached
    )
    is_single = F.col("doc_id").isNotNull() & (F.col("copies") == 1)
    in_events = counts.where(is_single & F.col("present")).select("doc_id")
    missing = counts.where(is_single & ~F.col("present")).select("doc_id")
    lacking = missing.count()
    texts = source.rows.limit(0)
    if lacking:
        wanted = F.broadcast(missing) if lacking <= BROADCAST_IDS else missing
        texts = cache_on_disk(source.rows.join(wanted, "doc_id", "left_semi"), cached)
    one = F.lit(1).cast("long")
    single = texts.unionByName(events.join(in_events, "doc_id", "left_semi")).withColumn("copies", one)
    # Each row of an id that occurs more than once, and each row without an id, is refused.
    each_row = F.explode(F.expr("sequence(1L, copies)"))
    refused = counts.where(~is_single).select("doc_id", "copies", each_row.alias("row")).drop("row")
    rows = single.unionByName(refused, allowMissingColumns=True)
    most = source.settings.max_chars
    return row_checks.validate_rows(rows, most), row_checks.validate_rows(texts.withColumn("copies", one), most)
