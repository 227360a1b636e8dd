"""A unit's documents, spread over tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from entitymill.run import units
from entitymill.source.reader import Source


@pytest.mark.parametrize(("chosen", "chars", "tasks"), [(16, 1, 16), (None, 1, 4), (None, 3_000_000, 12)])
def test_there_are_as_many_tasks_as_the_setting_or_the_texts_say(
    spark: SparkSession, source_of: Callable[..., Source], chosen: int | None, chars: int, tasks: int
) -> None:
    """Of two cores; a document is in one of them."""
    piece = units.PlannedUnit(source_of(*((f"d{number}", "Anna") for number in range(20))).rows, None, False, 20, chars)

    spread = units.repartition_unit(spark, piece, 250_000, chosen, drop_duplicates=False)

    assert spread.rdd.getNumPartitions() == tasks
    assert sorted(row.doc_id for row in spread.collect()) == sorted(f"d{number}" for number in range(20))
