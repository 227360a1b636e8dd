"""A stub of Databricks' launcher of wheel tasks, which has a Spark session and then calls the entry point by its name.

test_task.py starts this program as `runtime_stub.py JARS DIRECTORY TEXT ARGUMENTS...`. The program prints one line of JSON
with its observations.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

from pyspark.sql import SparkSession

SPARK = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.kryoserializer.buffer.max": "512m",
    "spark.scheduler.mode": "FAIR",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
}


def main(jars: str, directory: str, text: str, arguments: list[str]) -> None:
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "DATABRICKS_RUNTIME_VERSION": "16.4"}
    builder = SparkSession.builder.master("local[2]").config("spark.sql.warehouse.dir", f"{directory}/warehouse")
    for key, value in {**SPARK, "spark.jars": ",".join(map(str, sorted(Path(jars).glob("*.jar"))))}.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sql("CREATE SCHEMA raw")
    spark.createDataFrame([("a", text)], "id string, text string").write.format("delta").saveAsTable("raw.articles")
    before = (spark.sparkContext.applicationId, spark.sparkContext.master)

    [entry] = [point for point in entry_points(group="console_scripts") if point.name == "entitymill"]
    sys.argv = ["entitymill", *arguments]
    task = entry.load()
    task()
    # In another thread no session is active, but the task must still find the existing one.
    failed: list[BaseException] = []
    threading.excepthook = lambda how: failed.append(how.exc_value)  # type: ignore[assignment, arg-type, return-value]
    other = threading.Thread(target=task)
    other.start()
    other.join()

    rows = spark.table("spark_catalog.articles_out.entities").orderBy("begin").collect()
    modes = spark.table("spark_catalog.articles_out.runs").orderBy("started_at").collect()
    seen = {
        "same": before == (spark.sparkContext.applicationId, spark.sparkContext.master),
        "entities": [row.entity for row in rows],
        "modes": [row["mode"] for row in modes],
        "failed": [repr(error) for error in failed],
        "spark": spark.version,
        "package": str(sys.modules["entitymill"].__file__),
    }
    print("RESULT", json.dumps(seen))
    # A task must raise an exception when it fails: Databricks recognizes failures in no other way.
    sys.argv = ["entitymill", *arguments, "--set", "source.path=no.such.table"]
    try:
        task()
    except SystemExit as error:
        print("EXIT", error.code)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
