from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Before numpy is loaded: its threads would wait for each other where a test counts processor time. Spark's workers have one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Shared machines stall; how long an example takes says nothing here.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


LONG = (
    *("frozen_runs", "privacy", "units", "writers", "histories", "poison", "report", "incremental", "carried", "guards"),
    *("maintenance", "parquet_output", "slices", "stopping", "changes"),
)
"""Files of tests that take longest, by what they test: begun first, so that no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG) + (item.path.parent.name == "unit")))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    from spark_sessions import open_test_session  # noqa: PLC0415  # most tests need no Spark

    session = open_test_session(tmp_path_factory.mktemp("warehouse"))
    yield session
    session.stop()
