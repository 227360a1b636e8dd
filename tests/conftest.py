from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy is loaded: its threads would wait for each other where a test counts processor time. Spark's workers have one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[1]

# Shared machines stall; how long an example takes says nothing here.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


LONG = (
    *("frozen_runs", "privacy", "units", "writers", "histories", "poison", "report", "incremental", "carried", "guards"),
    *("maintenance", "parquet_output", "parity", "slices", "stopping", "changes"),
)
"""Files of tests that take longest, by what they test: begun first, so that no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG) + (item.path.parent.name == "unit")))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Return the only Spark session of a test process."""
    # Most tests need no Spark.
    from entitymill.settings import sections  # noqa: PLC0415
    from entitymill.spark.session import open_session  # noqa: PLC0415
    from small_queries import SMALL_QUERIES  # noqa: PLC0415

    logging = ROOT / "conf" / "log4j2.properties"
    conf = {
        **SMALL_QUERIES,
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.driver.memory": "3g",
        # Without the optimizing compiler, two files of tests took 167 CPU seconds instead of 205.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={logging.as_uri()} -XX:TieredStopAtLevel=1 "
        "-XX:ReservedCodeCacheSize=400m",
    }
    jars = f"{ROOT}/build/jars,{ROOT}/build/jars-sparknlp"
    chosen = sections.SparkSettings(master="local[2]", jars=jars, conf=conf)
    session = open_session(chosen, "entitymill tests", sparknlp=True)
    yield session
    session.stop()
