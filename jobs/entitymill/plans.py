"""Frames without the plan behind them: what Spark computed, or will, as it is, and one partition of it alone."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame


def apart(frame: DataFrame) -> DataFrame:
    """The same rows of a plan that names no table.

    Each commit of Delta throws away whatever is cached of its table, by the plans of what is cached. And what is planned
    again reads a table as it is then: these rows stay those of the versions that were read first, also where Spark
    computes a lost part again. Shuffles are made at once and, like a cached frame, serve all that is read of it.
    """
    return _frame(frame, frame._jdf.queryExecution().toRdd())


def partition(frame: DataFrame, index: int) -> DataFrame:
    """The rows of one partition, in one task; the others are not touched.

    Args:
        frame: that came `apart`.
        index: as spark_partition_id() has it.
    """
    system: Any = frame.sparkSession.sparkContext._jvm
    # A set of Scala's is a function that says whether it holds an element.
    chosen = system.scala.collection.JavaConverters.asScalaSet(system.java.util.Collections.singleton(index))
    return _frame(frame, system.org.apache.spark.rdd.PartitionPruningRDD.create(frame._jdf.queryExecution().toRdd(), chosen))


def _frame(like: DataFrame, rows: Any) -> DataFrame:
    """Spark's internal rows as they are: through objects of Java's, strings that are not UTF-8 would be others."""
    session: Any = like.sparkSession._jsparkSession
    return DataFrame(session.internalCreateDataFrame(rows, like._jdf.schema(), False), like.sparkSession)
