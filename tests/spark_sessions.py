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
        # spark.driver.extraJavaOptions would replace the options for logging and class data sharing that the program sets.
        # The optimizing compiler stays on: after eight runs, a run over ten documents takes 4.6 s; without it, 6.7 to 7.9 s.
        "spark.driver.defaultJavaOptions": "-XX:ReservedCodeCacheSize=400m",
    }
    jars = f"{ROOT}/build/jars" + (f",{ROOT}/build/jars-sparknlp" if sparknlp else "")
    chosen = sections.SparkSettings(master="local[2]", jars=jars, conf=conf)
    return open_session(chosen, "entitymill tests", sparknlp=sparknlp)
