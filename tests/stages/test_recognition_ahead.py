"""The next unit is recognized while one is published; at most two are held, and recognition stops when the run fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

from entitymill import schemas
from entitymill.run.recognition_ahead import (
    MAX_HELD_UNITS,
    BackgroundAction,
    BusySeconds,
    UnitInRecognition,
    recognize_ahead,
)
from entitymill.run.work_units import PlannedUnit
from entitymill.settings.sections import OutputSettings
from entitymill.spark import spark_connect
from entitymill.tables import Tables
from entitymill.tables.temporary_tables import TemporaryTable

PATIENCE = 60.0
"""Seconds that a test waits for what must happen."""
Units = Generator[PlannedUnit | UnitInRecognition, None, None]


def wait_for(path: Path) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def planned(spark: SparkSession) -> Callable[[int], Iterator[PlannedUnit]]:
    """Return a function that plans units of one document each; the doc_id is the number of the unit."""

    def plan(number: int) -> Iterator[PlannedUnit]:
        for unit in range(number):
            # createDataFrame would read the rows in a Python worker, and then return this worker to Spark's pool. If the
            # task is cancelled, Spark still kills the worker, and a later test gets it with a closed socket.
            documents = spark.range(unit, unit + 1).selectExpr("cast(id AS string) AS doc_id")
            yield PlannedUnit(documents, None, in_output=True, rows=1, chars=1)

    return plan


def recognize_into(directory: Path, *, sleeping: str = "", failing: str = "") -> Callable[[PlannedUnit], DataFrame]:
    """Return a recognition function that creates a marker file for each document, and sleeps or fails at one document."""
    marks = str(directory)

    def mark(frames: Any) -> Iterator[pd.DataFrame]:
        for frame in frames:
            for doc_id in frame["doc_id"]:
                Path(marks, doc_id).touch()
                if doc_id == sleeping:
                    time.sleep(600)
                if doc_id == failing:
                    raise ValueError("recognition fails")
            yield frame

    def recognize(unit: PlannedUnit) -> DataFrame:
        marked = unit.documents.coalesce(1).mapInPandas(mark, "doc_id string")
        types = {column.name: column.dataType.simpleString() for column in schemas.RECOGNIZED}
        values = {name: "array()" if kind.startswith("array") else "NULL" for name, kind in types.items()}
        return marked.selectExpr("doc_id", *(f"CAST({values[n]} AS {types[n]}) {n}" for n in values if n != "doc_id"))

    return recognize


def no_table(number: int) -> TemporaryTable:
    """Return a table that is never written, because this session can cache rows."""
    return TemporaryTable(MagicMock(), number)


def cached(spark: SparkSession) -> set[int]:
    """Return the ids of cached RDDs; other tests may have left some."""
    context: Any = spark.sparkContext
    return set(context._jsc.getPersistentRDDs().keySet())


def publish(ahead: Units, each: Callable[[list[Row]], None]) -> None:
    """Wait for each unit, and pass its counts to `each`."""
    with contextlib.closing(ahead):
        for unit in ahead:
            assert isinstance(unit, UnitInRecognition)
            each(unit.wait())


def test_the_next_unit_is_recognized_while_one_is_published(
    spark: SparkSession, tmp_path: Path, planned: Callable[[int], Iterator[PlannedUnit]]
) -> None:
    seen: list[list[str]] = []
    before = cached(spark)

    def look_around(rows: list[Row]) -> None:
        number = len(seen)
        assert number == 3 or wait_for(tmp_path / str(number + 1))
        assert not (tmp_path / str(number + MAX_HELD_UNITS)).exists()
        seen.extend(row["ids"] for row in rows)

    publish(recognize_ahead(spark, planned(4), recognize_into(tmp_path), no_table), look_around)
    assert seen == [["0"], ["1"], ["2"], ["3"]]
    assert cached(spark) <= before


def test_results_are_stored_in_a_table_where_the_session_does_not_cache_them(
    spark: SparkSession,
    tmp_path: Path,
    planned: Callable[[int], Iterator[PlannedUnit]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spark_connect, "try_persist", lambda *_: False)
    tables = Tables(spark, OutputSettings(path=str(tmp_path / "out")))
    marks = tmp_path / "marks"
    marks.mkdir()
    units = recognize_ahead(spark, planned(2), recognize_into(marks), partial(TemporaryTable, tables, 7))
    with contextlib.closing(units):
        for number, unit in enumerate(units):
            assert isinstance(unit, UnitInRecognition)
            assert [row["rows"] for row in unit.wait()] == [1]
            (marks / str(number)).unlink()
            assert [row["doc_id"] for row in unit.recognized.collect()] == [str(number)]
            assert not (marks / str(number)).exists()  # the document was not recognized again
    assert list((tmp_path / "out").iterdir()) == []


def test_recognition_stops_when_a_unit_cannot_be_published(
    spark: SparkSession, tmp_path: Path, planned: Callable[[int], Iterator[PlannedUnit]]
) -> None:
    began, before = time.monotonic(), cached(spark)
    ahead = recognize_ahead(spark, planned(3), recognize_into(tmp_path, sleeping="1"), no_table)

    def refuse(rows: list[Row]) -> None:
        assert rows
        assert wait_for(tmp_path / "1")
        raise OSError("the commit is refused")

    with pytest.raises(OSError, match="refused"):
        publish(ahead, refuse)
    assert time.monotonic() - began < PATIENCE
    assert list(spark.sparkContext.statusTracker().getActiveJobsIds()) == []
    assert cached(spark) <= before


def test_a_unit_that_cannot_be_recognized_fails_only_when_it_is_due(
    spark: SparkSession, tmp_path: Path, planned: Callable[[int], Iterator[PlannedUnit]]
) -> None:
    published: list[Row] = []
    ahead = recognize_ahead(spark, planned(3), recognize_into(tmp_path, failing="1"), no_table)
    with pytest.raises(PySparkException):
        publish(ahead, published.extend)
    assert [row["ids"] for row in published] == [["0"]]


def test_units_that_only_remove_documents_are_not_recognized(spark: SparkSession, tmp_path: Path) -> None:
    gone = spark.createDataFrame([("x",)], "doc_id string")
    removal = PlannedUnit(gone, gone, in_output=True, rows=0, chars=0)
    assert list(recognize_ahead(spark, iter([removal]), recognize_into(tmp_path), no_table)) == [removal]


def test_seconds_that_two_actions_share_count_once(spark: SparkSession) -> None:
    busy = BusySeconds()
    first: BackgroundAction[list[Row]] = BackgroundAction(spark, list)
    second: BackgroundAction[list[Row]] = BackgroundAction(spark, list)
    assert first.wait() == second.wait() == []
    first.began, first.ended = 10.0, 14.0
    second.began, second.ended = 11.0, 17.0
    busy.add(first)
    busy.add(second)
    assert busy.seconds == 7.0
