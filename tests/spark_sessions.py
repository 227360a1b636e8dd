"""Open the session of a test process."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from entitymill.settings import sections
from entitymill.spark.session import open_session
from small_queries import SMALL_QUERIES

ROOT = Path(__file__).parents[1]


def open_test_session(warehouse: Path, *, sparknlp: bool = False) -> SparkSession:
    """Open a session for tests; `sparknlp` loads Spark NLP's jars, too."""
    conf = {
        **SMALL_QUERIES,
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.driver.memory": "3g",
        # Not extraJavaOptions, which would replace the program's own: its logging and its archive of Java's classes.
        # With the optimizing compiler, a run over ten documents took 4.6 s after eight runs, without it 6.7 to 7.9 s.
        "spark.driver.defaultJavaOptions": "-XX:ReservedCodeCacheSize=400m",
    }
    jars = f"{ROOT}/build/jars" + (f",{ROOT}/build/jars-sparknlp" if sparknlp else "")
    chosen = sections.SparkSettings(master="local[2]", jars=jars, conf=conf)
    return open_session(chosen, "entitymill tests", sparknlp=sparknlp)
