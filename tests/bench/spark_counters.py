"""Read Spark's own counters."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


def count_jobs(spark: SparkSession) -> tuple[int, int]:
    """Return the numbers of Spark jobs and SQL executions so far."""
    context: Any = spark.sparkContext._jsc.sc()
    executions = spark._jsparkSession.sharedState().statusStore().executionsCount()
    return int(context.dagScheduler().numTotalJobs()), int(executions)
