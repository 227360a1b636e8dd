"""Open a separate session for a run, so that no setting of the caller's session can change results."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from entitymill.spark import spark_connect
from entitymill.spark.session import override_conf

PINNED = {
    # How SQL is parsed and evaluated.
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
    # Do not change dates before 1582 and times before 1900: Parquet and Spark both use today's calendar.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    # How Delta writes.
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
}
"""Spark property that could change a run's results -> its value during a run."""
UNSET = (
    "spark.databricks.delta.write.txnAppId",
    "spark.databricks.delta.write.txnVersion",
    "spark.databricks.delta.commitInfo.userMetadata",
    "spark.databricks.delta.properties.defaults.appendOnly",
)
"""Spark properties that a run must not inherit from the caller's session."""
_SESSION_LOCKS: dict[str, threading.RLock] = {}
"""Id of a Spark Connect session -> the lock that a run in this session holds."""


@contextmanager
def open_private_session(spark: SparkSession, time_zone: str, confs: Mapping[str, str]) -> Iterator[SparkSession]:
    """Yield a session for one run: a copy of the caller's session, with the properties PINNED and `confs`.

    The copy shares tables, temporary views, functions and cached data with the caller's session, but not properties: if a
    run sets Delta's txnVersion in the copy, no statement of another thread uses it. Until the block ends, the copy is the
    active session. Spark Connect cannot copy a session: there the properties of the caller's session itself are changed
    and later restored, and runs in the same session wait for each other.

    Args:
        spark: the caller's session.
        time_zone: time zone in which times are compared and cast to strings.
        confs: Spark properties to set in addition to PINNED.
    """
    chosen = {**PINNED, "spark.sql.session.timeZone": time_zone, **confs}
    if spark_connect.is_remote(spark):
        with _SESSION_LOCKS.setdefault(spark_connect.get_session_id(spark), threading.RLock()), override_conf(spark, chosen):
            yield spark
        return
    copy = clone_session(spark)
    # SQL strings, such as the argument of `F.expr`, are parsed with the properties of the active session. Creating a
    # DataFrame makes `copy` the active session.
    copy.createDataFrame([], "none int")
    for key, value in chosen.items():
        copy.conf.set(key, value)
    for key in UNSET:
        copy.conf.unset(key)
    try:
        yield copy
    finally:
        with suppress(Exception):  # Spark may have been stopped in the meantime
            spark.createDataFrame([], "none int")


def clone_session(spark: SparkSession) -> SparkSession:
    """Return a copy of a session with independent properties; return the session itself if it uses Spark Connect."""
    if spark_connect.is_remote(spark):
        return spark
    return SparkSession(spark.sparkContext, spark._jsparkSession.cloneSession())
