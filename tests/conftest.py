from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Set this before numpy is imported: some tests measure processor time, which threads that wait for each other would use up.
# Spark's Python workers also have one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# No test fails because an example takes long: a shared machine may stall.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    from spark_sessions import open_test_session  # noqa: PLC0415  # most tests need no Spark

    session = open_test_session(tmp_path_factory.mktemp("warehouse"))
    yield session
    session.stop()
