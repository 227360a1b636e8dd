"""Open the session of a test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

from entitymill.settings import sections
from entitymill.spark import storage
from entitymill.spark.private_session import override_conf
from entitymill.spark.session import open_session
from small_queries import SMALL_QUERIES

ROOT = Path(__file__).parents[1]


def open_test_session(warehouse: Path, *, sparknlp: bool = False) -> SparkSession:
    """Open a session for tests; `sparknlp` loads Spark NLP's jars, too."""
    conf = {
        **SMALL_QUERIES,
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.driver.memory": "3g",
        # spark.driver.extraJavaOptions would replace the options for logging and class data sharing that the program sets.
        # The optimizing compiler stays on: after eight runs, a run over ten documents takes 4.6 s; without it, 6.7 to 7.9 s.
        "spark.driver.defaultJavaOptions": "-XX:ReservedCodeCacheSize=400m",
    }
    jars = f"{ROOT}/build/jars" + (f",{ROOT}/build/jars-sparknlp" if sparknlp else "")
    chosen = sections.SparkSettings(master="local[2]", jars=jars, conf=conf)
    return open_session(chosen, "entitymill tests", sparknlp=sparknlp)


@contextmanager
def use_unreachable_file_system(spark: SparkSession) -> Iterator[None]:
    """In this block, let the session's default file system be one that cannot be reached: paths without a scheme fail."""
    try:
        with override_conf(spark, {"fs.defaultFS": "hdfs://nowhere.invalid:1"}):
            storage.forget_configuration(spark)
            yield
    finally:
        storage.forget_configuration(spark)
