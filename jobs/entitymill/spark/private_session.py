"""Open a separate session for a run, so that no property of the caller's session can change results."""

from __future__ import annotations

import re
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import pyspark
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from entitymill.errors import SessionError
from entitymill.spark import spark_connect

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
    "spark.sql.legacy.exponentLiteralAsDecimal.enabled": "false",
    "spark.sql.legacy.typeCoercion.datetimeToString.enabled": "false",
    "spark.sql.mapKeyDedupPolicy": "EXCEPTION",
    "spark.sql.legacy.charVarcharAsString": "false",
    "spark.sql.readSideCharPadding": "true",
    "spark.sql.legacy.sizeOfNull": "true",
    # The largest length: `reads_cached_rows` searches the text of the complete plan.
    "spark.sql.maxPlanStringLength": str(2**31 - 16),
    # How files are read.
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreInvalidPartitionPaths": "false",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    "spark.sql.parquet.binaryAsString": "false",
    "spark.sql.parquet.int96AsTimestamp": "true",
    "spark.sql.parquet.int96TimestampConversion": "false",
    "spark.sql.parquet.mergeSchema": "false",
    "spark.sql.parquet.writeLegacyFormat": "false",
    "spark.sql.parquet.outputTimestampType": "INT96",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "false",
    # Do not convert dates before 1582 and times before 1900: Parquet and Spark both use the Gregorian calendar.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    # How Delta reads and writes.
    "spark.databricks.delta.stalenessLimit": "0",
    "spark.sql.sources.partitionOverwriteMode": "static",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.replaceWhere.dataColumns.enabled": "true",
    "spark.databricks.delta.replaceWhere.dataColumnsWithCDF.enabled": "true",
    "spark.databricks.delta.vacuum.lite.enabled": "false",
    # With the default, Delta 4.1 and later would refuse to read a version that is a week old and no longer the latest.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
}
"""Dict from each Spark property that could change a run's results to its value during a run."""
UNSET = (
    "spark.databricks.delta.write.txnAppId",
    "spark.databricks.delta.write.txnVersion",
    "spark.databricks.delta.commitInfo.userMetadata",
    "spark.databricks.delta.properties.defaults.appendOnly",
    "spark.databricks.delta.properties.defaults.columnMapping.mode",
    "spark.databricks.delta.properties.defaults.setTransactionRetentionDuration",
)
"""Spark properties that are unset during a run, because the caller's values must not apply to the run's commits."""
NO_CONFS: Mapping[str, str] = MappingProxyType({})
_PROCESS_STATE = threading.RLock()
"""Lock of `keep_process_state`: both the main thread and a background thread of a run copy sessions."""
_SESSION_LOCKS: dict[str, threading.RLock] = {}
"""Dict from the id of a Spark Connect session to the lock that a run in this session holds."""


@contextmanager
def open_private_session(spark: SparkSession, time_zone: str, confs: Mapping[str, str]) -> Iterator[SparkSession]:
    """Yield a session for one run: a copy of the caller's session, in which all properties that affect results are fixed.

    The properties in PINNED, the time zone and `confs` are set; the properties in UNSET are unset. The copy has the
    tables, temporary views, functions and cached data of the caller's session, but its own properties. So if a run sets
    Delta's txnVersion in the copy, statements of other threads do not use this value. In the JVM, the copy is this thread's
    active session until the block ends; then the caller's session becomes active.

    Spark Connect cannot copy a session. Instead, the properties of the caller's session are changed, and restored at the
    end of the block. So with Spark Connect, runs in the same session wait for each other.

    Args:
        spark: the caller's session.
        time_zone: time zone in which times are compared and cast to strings.
        confs: Spark properties in addition to PINNED; they override PINNED.

    Raises:
        SessionError: a session of Spark Connect refuses to set Delta's transaction numbers (txnAppId and txnVersion).
    """
    chosen = {**PINNED, "spark.sql.session.timeZone": time_zone, **confs}
    if spark_connect.is_remote(spark):
        lock = _SESSION_LOCKS.setdefault(spark_connect.get_session_id(spark), threading.RLock())
        with lock, _clear_inherited(spark), override_conf(spark, chosen):
            yield spark
        return
    copy = clone_session(spark)
    # SQL strings, such as the argument of `F.expr`, are parsed with the properties of the JVM's active session.
    _activate(copy)
    for key, value in chosen.items():
        copy.conf.set(key, value)
    for key in UNSET:
        copy.conf.unset(key)
    try:
        yield copy
    finally:
        with suppress(Exception):  # Spark may have been stopped in the meantime
            _activate(spark)
            SparkSession._activeSession = spark


def _activate(spark: SparkSession) -> None:
    """Make a session active for this thread in the JVM, but not in Python, where all threads share one active session."""
    classes: Any = spark._jvm
    classes.SparkSession.setActiveSession(spark._jsparkSession)


@contextmanager
def _clear_inherited(spark: SparkSession) -> Iterator[None]:
    """Unset the properties in UNSET of a Spark Connect session, and restore them at the end of the block.

    Raise SessionError if the session refuses to set Delta's transaction numbers.
    """
    before = {key: spark.conf.get(key, None) for key in UNSET}
    refused = False
    try:
        try:
            _check_transaction_numbers(spark)
        except SessionError:
            refused = True
            raise
        for key in UNSET:
            spark.conf.unset(key)
        yield
    finally:
        if not refused:  # a session that refuses the property may refuse to restore it, too
            _restore_conf(spark, before)


def _check_transaction_numbers(spark: SparkSession) -> None:
    """Raise SessionError if a session refuses to set Delta's transaction numbers (properties txnAppId and txnVersion).

    To find out, set txnAppId to a random value. The caller must unset or restore this property.
    """
    try:
        # The value is random: if another thread writes a table at this moment, Delta must not find an earlier commit with
        # the same value, and skip the write.
        spark.conf.set(UNSET[0], uuid.uuid4().hex)
    except PySparkException as error:
        reason = re.search(r"\[[A-Z_.]+\][^\"\n]*", str(error))
        raise SessionError(
            f"this session refuses to set {UNSET[0]} ({reason[0].strip() if reason else type(error).__name__}). Without it, "
            "Delta cannot refuse commits of a run that another run has replaced, so nothing was written: run the job on "
            "compute with the access mode standard or dedicated."
        ) from error


def clone_session(spark: SparkSession) -> SparkSession:
    """Return a copy of a session with independent properties; return the session itself if it uses Spark Connect."""
    if spark_connect.is_remote(spark):
        return spark
    with keep_process_state():
        return SparkSession(spark.sparkContext, spark._jsparkSession.cloneSession())


@contextmanager
def keep_process_state() -> Iterator[None]:
    """At the end of the block, restore two values that PySpark sets for all threads: `RDD.toDF` and the active session.

    Creating a SparkSession object makes `RDD.toDF` use this object. Calling `createDataFrame` on a session makes that
    session the active one. Without this function, other threads of the process could use a run's session by mistake.
    """
    distributed = getattr(pyspark, "RDD", None)  # a package with only the client of Spark Connect has no RDDs
    with _PROCESS_STATE:
        to_frame, active = getattr(distributed, "toDF", None), getattr(SparkSession, "_activeSession", None)
        try:
            yield
        finally:
            if distributed is not None and to_frame is not None:
                distributed.toDF = to_frame
            SparkSession._activeSession = active


def run_statement(spark: SparkSession, statement: str, *, confs: Mapping[str, str] = NO_CONFS) -> None:
    """Run an SQL statement; `confs` are Spark properties that apply only to this statement, such as Delta's txnVersion.

    Another thread may get the session, for example through PySpark's `RDD.toDF`, and write its own tables with it. So if
    there are `confs`, the statement runs in a copy of the session, which exists only in the JVM. Spark Connect cannot copy a
    session; there, the properties are set in the session itself until the statement ends.
    """
    if not confs:
        spark.sql(statement)
    elif spark_connect.is_remote(spark):
        with override_conf(spark, confs):
            spark.sql(statement)
    else:
        copy = spark._jsparkSession.cloneSession()
        for key, value in confs.items():
            copy.conf().set(key, value)
        copy.sql(statement)


def reads_cached_rows(frame: DataFrame) -> bool:
    """Return whether Spark would read rows of a DataFrame from its cache; always False with Spark Connect."""
    if spark_connect.is_remote(frame.sparkSession):
        return False
    return "InMemoryRelation" in frame._jdf.queryExecution().withCachedData().toString()


def create_frame(spark: SparkSession, rows: Iterable[Any], schema: str | StructType) -> DataFrame:
    """Return a DataFrame of Python rows; `schema` is a StructType, or a string such as `doc_id string, chars int`.

    This makes `spark` the active session of this thread, but not of other threads. With Spark Connect, the active session
    does not change.
    """
    if spark_connect.is_remote(spark):
        return spark.createDataFrame(rows, schema)
    with keep_process_state():
        return spark.createDataFrame(rows, schema)


@contextmanager
def override_conf(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Set properties of a session, and restore their previous values at the end of the block."""
    before = {key: spark.conf.get(key, None) for key in values}
    try:
        _set_conf(spark, values)
        yield
    finally:
        _restore_conf(spark, before)


def _restore_conf(spark: SparkSession, values: Mapping[str, str | None]) -> None:
    """Set properties of a session, and unset properties whose value is None, even if Ctrl-C interrupts this function.

    After an interruption, the remaining properties are set first; then KeyboardInterrupt is raised again.
    """
    interrupted: KeyboardInterrupt | None = None
    for key, value in values.items():
        try:
            _set_conf(spark, {key: value})
        except KeyboardInterrupt as error:
            interrupted = error
            _set_conf(spark, {key: value})
    if interrupted is not None:
        raise interrupted


def _set_conf(spark: SparkSession, values: Mapping[str, str | None]) -> None:
    """Set properties of a session; unset a property whose value is None."""
    with warnings.catch_warnings():
        # Spark Connect's client warns of legacy properties, such as some of PINNED.
        warnings.filterwarnings("ignore", message="The SQL config")
        for key, value in values.items():
            if value is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, value)
