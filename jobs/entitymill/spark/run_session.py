"""A session of its own for one run, in which no setting of the caller's session can change results."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from entitymill.spark import spark_connect
from entitymill.spark.session import override_conf

PINNED = {
    # How SQL is read.
    "spark.sql.parser.escapedStringLiterals": "false",
    "spark.sql.parser.quotedRegexColumnNames": "false",
    "spark.sql.variable.substitute": "false",
    "spark.sql.caseSensitive": "false",
    "spark.sql.ansi.enabled": "false",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.decimalOperations.allowPrecisionLoss": "true",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
    "spark.sql.legacy.charVarcharAsString": "false",
    # How files are read.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    "spark.sql.parquet.binaryAsString": "false",
    "spark.sql.parquet.int96AsTimestamp": "true",
    "spark.sql.parquet.mergeSchema": "false",
    "spark.sql.parquet.writeLegacyFormat": "false",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "false",
    # Dates before 1582 and times before 1900 as they stand: Parquet's own calendar is today's.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    # How Delta writes.
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
}
"""Settings of a session that could change what a run finds, with the values that hold while it runs."""
UNSET = (
    "spark.databricks.delta.write.txnAppId",
    "spark.databricks.delta.write.txnVersion",
    "spark.databricks.delta.commitInfo.userMetadata",
    "spark.databricks.delta.properties.defaults.appendOnly",
)
"""Settings of a session that a run must not inherit at all."""
_SESSION_LOCKS: dict[str, threading.RLock] = {}


@contextmanager
def open_private_session(spark: SparkSession, time_zone: str, confs: Mapping[str, str]) -> Iterator[SparkSession]:
    """Give a copy of a session with PINNED and other settings; the caller's session stays as it is.

    The copy shares tables, temporary views, functions and cached data with the caller's session. Numbers of Delta's
    transactions stand only in the copy, so no statement of another thread carries one. Spark Connect cannot copy a
    session: there the caller's is changed and given back, and runs of one session wait for each other.

    Args:
        time_zone: in which times are compared and cast to strings.
        confs: further settings.
    """
    chosen = {**PINNED, "spark.sql.session.timeZone": time_zone, **confs}
    if spark_connect.is_remote(spark):
        with _SESSION_LOCKS.setdefault(spark_connect.session_id(spark), threading.RLock()), override_conf(spark, chosen):
            yield spark
        return
    copy = clone_session(spark)
    # The active session's settings decide how strings such as `F.expr` takes are read; PySpark makes this one active.
    copy.createDataFrame([], "none int")
    for key, value in chosen.items():
        copy.conf.set(key, value)
    for key in UNSET:
        copy.conf.unset(key)
    try:
        yield copy
    finally:
        with suppress(Exception):  # Spark may have been stopped meanwhile
            spark.createDataFrame([], "none int")


def clone_session(spark: SparkSession) -> SparkSession:
    """Return a copy of a session with its settings; changes of either do not reach the other."""
    if spark_connect.is_remote(spark):
        return spark
    return SparkSession(spark.sparkContext, spark._jsparkSession.cloneSession())
