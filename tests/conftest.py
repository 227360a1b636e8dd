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


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    from spark_sessions import open_test_session  # noqa: PLC0415  # most tests need no Spark

    session = open_test_session(tmp_path_factory.mktemp("warehouse"))
    yield session
    session.stop()
