"""Look up ids in the source if change events do not tell which rows the ids have now; read texts only if necessary."""

from __future__ import annotations

from contextlib import ExitStack

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.source import row_checks
from entitymill.source.reader import Source
from entitymill.spark.spark_connect import cache_on_disk

BROADCAST_IDS = 100_000
"""Maximum number of ids that are broadcast; the broadcast avoids shuffling the source's rows."""


def look_up_rows(
    source: Source, ids: DataFrame, id_count: int, events: DataFrame, cached: ExitStack
) -> tuple[DataFrame, DataFrame]:
    """Return the rows that the source has for some ids. This runs Spark jobs.

    Args:
        source: source of the run.
        ids: frame with the columns doc_id (distinct ids, one of which may be null) and present (whether the latest commit of
            the id inserted or updated exactly one row of the id).
        id_count: number of rows of `ids`.
        events: frame with the columns doc_id, text and, if present, `passthrough`, of the rows that the latest commit
            of each id inserted or updated.
        cached: stack to which this function adds callbacks that release cached data when the stack is closed.

    Returns:
        Two frames with the columns of `row_checks.validate_rows`. The first has all rows of the ids; the text is null in
        rows that are rejected because of their id. The second has only the rows whose texts were read from the source,
        because the events do not contain them.
    """
    few = F.broadcast(ids) if id_count <= BROADCAST_IDS else ids
    same_id = F.col("s.doc_id").eqNullSafe(F.col("i.doc_id"))
    rows_of_ids = source.rows.select("doc_id").alias("s").join(few.alias("i"), same_id).select("s.doc_id", "i.present")
    counts = cache_on_disk(
        rows_of_ids.groupBy("doc_id").agg(F.count("*").alias("copies"), F.first("present").alias("present")), cached
    )
    is_single = F.col("doc_id").isNotNull() & (F.col("copies") == 1)
    in_events = counts.where(is_single & F.col("present")).select("doc_id")
    missing = counts.where(is_single & ~F.col("present")).select("doc_id")
    missing_count = missing.count()
    texts = source.rows.limit(0)
    if missing_count:
        missing = F.broadcast(missing) if missing_count <= BROADCAST_IDS else missing
        texts = cache_on_disk(source.rows.join(missing, "doc_id", "left_semi"), cached)
    one = F.lit(1).cast("long")
    single = texts.unionByName(events.join(in_events, "doc_id", "left_semi")).withColumn("copies", one)
    # Rows without an id, and all rows of an id that occurs more than once, are rejected.
    each_row = F.explode(F.expr("sequence(1L, copies)"))
    rejected = counts.where(~is_single).select("doc_id", "copies", each_row.alias("row")).drop("row")
    rows = single.unionByName(rejected, allowMissingColumns=True)
    most = source.settings.max_chars
    return row_checks.validate_rows(rows, most), row_checks.validate_rows(texts.withColumn("copies", one), most)
