"""Test how documents are split into units, and how a unit's documents are spread over tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from entitymill.errors import EntityMillError
from entitymill.run import work_units
from entitymill.run.work_units import UnitSizes
from entitymill.source.changes import Changes, Mode
from entitymill.source.reader import Source

from .conftest import frame_of


@pytest.mark.parametrize(("chosen", "chars", "tasks"), [(16, 1, 16), (None, 1, 4), (None, 6_000_000, 24)])
def test_there_are_as_many_tasks_as_the_setting_or_the_texts_say(
    spark: SparkSession, source_of: Callable[..., Source], chosen: int | None, chars: int, tasks: int
) -> None:
    """The session has two cores. Each document must be in exactly one task."""
    piece = work_units.PlannedUnit(source_of(*((f"d{number}", "Anna") for number in range(20))).rows, None, False, 20, chars)

    spread = work_units.repartition_unit(spark, piece, 250_000, chosen, drop_duplicates=False)

    assert spread.rdd.getNumPartitions() == tasks
    assert sorted(row.doc_id for row in spread.collect()) == sorted(f"d{number}" for number in range(20))


def test_one_unit_is_written_first_where_each_use_would_read_the_source_again(spark: SparkSession, tmp_path: Path) -> None:
    """The counts are from an earlier reading of the source, and a document of the output has changed since then."""
    columns = "doc_id string, text string, text_hash string, chars int, in_output boolean"
    documents = frame_of(spark, [("a", "Anna", "0", 4, False), ("b", "Bob", "1", 3, True)], columns)
    nothing = documents.limit(0)
    found = Changes(Mode.COMPARE, documents, nothing, nothing, None, nothing, 2, {}, 1, 0, 0, chars=4, to_replace=0)

    def write(frame: DataFrame) -> DataFrame:
        frame.write.mode("overwrite").partitionBy("unit").parquet(str(tmp_path / "units"))
        return spark.read.parquet(str(tmp_path / "units"))

    sizes = UnitSizes(100, 10_000, 1000)
    (unit,) = work_units.split_work(found, sizes, write, always_store=True)
    assert (unit.in_output, unit.rows, unit.chars, unit.removed) == (True, 2, 7, None)
    assert sorted(row["doc_id"] for row in unit.documents.collect()) == ["a", "b"]
    assert unit.documents.inputFiles()
    one_counted = replace(found, removed=documents.select("doc_id"), to_remove=1)
    with pytest.raises(EntityMillError, match="would remove more documents from the output than it counted"):
        list(work_units.split_work(one_counted, sizes, write, always_store=True))
