"""Test a run's private session: the caller's settings do not change results, and the run does not change these settings."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyspark.sql import SparkSession

from entitymill.source.source_columns import is_nondeterministic
from entitymill.spark import private_session
from entitymill.spark.private_session import (
    PINNED,
    UNSET,
    clone_session,
    create_frame,
    open_private_session,
    override_conf,
)
from entitymill.tables import publisher

HOSTILE = {
    "spark.sql.parser.escapedStringLiterals": "true",
    "spark.sql.files.ignoreCorruptFiles": "true",
    "spark.sql.files.ignoreMissingFiles": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "Pacific/Kiritimati",
    "spark.sql.sources.partitionOverwriteMode": "dynamic",
    "spark.databricks.delta.write.txnAppId": "entitymill",
    "spark.databricks.delta.write.txnVersion": "9",
    "spark.databricks.delta.properties.defaults.appendOnly": "true",
}


@pytest.fixture
def caller(spark: SparkSession) -> Iterator[SparkSession]:
    """Yield a session with properties that would change or break a run."""
    with override_conf(spark, HOSTILE):
        yield spark


def test_pinned_settings_hold_inside_and_the_callers_stay(caller: SparkSession) -> None:
    with open_private_session(caller, "UTC", {"spark.sql.shuffle.partitions": "3"}) as own:
        assert {key: own.conf.get(key) for key in PINNED} == PINNED
        assert [own.conf.get(key, None) for key in UNSET] == [None] * len(UNSET)
        assert own.conf.get("spark.sql.session.timeZone") == "UTC"
        assert own.conf.get("spark.sql.shuffle.partitions") == "3"
        assert own.sql(r"SELECT '\\'").first() == ("\\",)
        assert {key: caller.conf.get(key) for key in HOSTILE} == HOSTILE
        own.conf.set("spark.databricks.delta.write.txnVersion", "10")
        assert caller.conf.get("spark.databricks.delta.write.txnVersion") == "9"
    assert {key: caller.conf.get(key) for key in HOSTILE} == HOSTILE
    assert caller.sql(r"SELECT '\\'").first() == ("\\\\",)


def test_an_interrupted_restoration_is_completed(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Spark Connect, a second Ctrl-C must not leave the caller's session with the properties of a run."""
    keys = ["spark.sql.ansi.enabled", "spark.sql.caseSensitive", "spark.sql.shuffle.partitions"]
    before = {key: spark.conf.get(key, None) for key in keys}
    set_conf = private_session._set_conf
    interrupted: list[object] = []

    def interrupt_once(session: SparkSession, values: dict[str, str | None]) -> None:
        if values == {keys[0]: before[keys[0]]} and not interrupted:
            interrupted.append(1)
            raise KeyboardInterrupt
        set_conf(session, values)

    with pytest.raises(KeyboardInterrupt), override_conf(spark, dict(zip(keys, ["true", "true", "7"], strict=True))):
        monkeypatch.setattr(private_session, "_set_conf", interrupt_once)
    assert interrupted
    assert {key: spark.conf.get(key, None) for key in keys} == before


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_session_is_the_active_one_afterwards(spark: SparkSession, *, fails: bool) -> None:
    def work(own: SparkSession) -> None:
        assert own.createDataFrame([(1,)], "a int").count() == 1
        if fails:
            raise RuntimeError("died")

    if fails:
        with pytest.raises(RuntimeError, match="died"), open_private_session(spark, "UTC", {}) as own:
            work(own)
    else:
        with open_private_session(spark, "UTC", {}) as own:
            work(own)
    assert SparkSession.getActiveSession() is not None
    assert SparkSession.getActiveSession()._jsparkSession.equals(spark._jsparkSession)  # type: ignore[union-attr]


def test_expressions_in_a_string_are_read_by_the_runs_session(caller: SparkSession) -> None:
    """Spark parses the strings of F.expr with the session that is active in the thread."""
    with open_private_session(caller, "UTC", {}) as own:
        rows = own.sql("SELECT 'New   York' AS entity")
        assert publisher.add_normalized(rows).first()["entity_normalized"] == "new york"  # type: ignore[index]


def test_views_and_functions_of_the_caller_are_there(spark: SparkSession) -> None:
    """A run must see the caller's temporary views, because its source may be one of them."""
    spark.range(3).createOrReplaceTempView("three_rows")
    try:
        with open_private_session(spark, "UTC", {}) as own:
            assert own.read.table("three_rows").count() == 3
    finally:
        spark.catalog.dropTempView("three_rows")


def test_changes_of_a_copy_do_not_reach_the_other(spark: SparkSession) -> None:
    copy = clone_session(spark)
    copy.conf.set("spark.entitymill.test", "copy")
    assert spark.conf.get("spark.entitymill.test", None) is None


def test_pyspark_does_not_give_a_runs_session_to_other_threads(spark: SparkSession) -> None:
    """PySpark keeps one session for `RDD.toDF`, and one active session, for all threads of a process."""

    def use_own_sessions() -> bool:
        spark.createDataFrame([], "none int")  # a session is active in this thread, too
        numbers = spark.sparkContext.parallelize([(1,)])
        found = [numbers.toDF("a int").sparkSession, SparkSession.getActiveSession()]
        return all(session._jsparkSession.equals(spark._jsparkSession) for session in found if session is not None)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(use_own_sessions).result()
        with open_private_session(spark, "UTC", {}) as own:
            create_frame(own, [(1,)], "a int")
            clone_session(own)
            assert thread.submit(use_own_sessions).result()
        assert thread.submit(use_own_sessions).result()


def test_a_function_of_the_user_may_select_other_rows_later(spark: SparkSession) -> None:
    spark.udf.register("recently", bool, "boolean")
    assert is_nondeterministic(spark, "kind IN ('a') AND Recently(day)")
    assert is_nondeterministic(spark, "main.anything (day)")
    assert not is_nondeterministic(spark, "date_add(day, 1) > '2026-11-01' AND (t.kind IN ('a') OR int(score) > 1. AND (a))")
    assert not is_nondeterministic(spark, "text NOT LIKE '%e.g. recently (bar)%'")
    assert not is_nondeterministic(spark, None)
