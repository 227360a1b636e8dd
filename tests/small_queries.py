"""Spark properties for sessions with thousands of small queries, whose compilation would take half of a run's time."""

from __future__ import annotations

SMALL_QUERIES = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.shuffle.partitions": "2",
    # The number of tasks with which VACUUM lists files, 10,000 by default.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
}
