"""Read Spark's own counters."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


def count_jobs(spark: SparkSession) -> tuple[int, int]:
    """Return the numbers of Spark jobs and SQL executions so far."""
    context: Any = spark.sparkContext._jsc.sc()
    executions = spark._jsparkSession.sharedState().statusStore().executionsCount()
    return int(context.dagScheduler().numTotalJobs()), int(executions)


def list_stages(spark: SparkSession) -> list[Any]:
    """Return Spark's data on the stages so far (Java objects of the class StageData), except those that it has forgotten."""
    context: Any = spark.sparkContext
    none = context._gateway.new_array(context._jvm.double, 0)
    stages = context._jsc.sc().statusStore().stageList(None, False, False, none, None)
    return [stages.apply(at) for at in range(stages.size())]
