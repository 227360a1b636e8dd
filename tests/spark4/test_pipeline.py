"""The example of a declarative pipeline, run by Spark 4.1's own command."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spark4.both import NEWEST, ROOT, clean_environment

TEXTS = {"a": "Angela Merkel flew to Paris.", "b": "Nothing here.", "c": None}


USES_MENTIONS = """

@pipelines.materialized_view
def of_a_dataframe() -> DataFrame:
    return entitymill.mentions(spark.read.parquet(os.environ["ARTICLES"]), model=os.environ["ENTITYMILL_MODEL"])
"""
"""Code of a second table of the pipeline, whose function calls `entitymill.mentions`."""


def test_the_pipeline_writes_the_mentions(tmp_path: Path) -> None:
    done = run_pipeline(tmp_path, USES_MENTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    for table in ("mentions", "of_a_dataframe"):
        found = pq.read_table(tmp_path / "pipeline" / "spark-warehouse" / table).to_pylist()
        assert sorted((row["id"], row["entity"], row["label"]) for row in found) == [
            ("a", "Angela Merkel", "PER"),
            ("a", "Paris", "LOC"),
        ]


def run_pipeline(tmp_path: Path, more: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the example with `more` code at its end."""
    shutil.copytree(ROOT / "examples" / "pipeline", tmp_path / "pipeline")
    with (tmp_path / "pipeline" / "transformations" / "mentions.py").open("a") as code:
        code.write(more)
    articles = tmp_path / "articles"
    articles.mkdir()
    pq.write_table(pa.table({"id": list(TEXTS), "text": list(TEXTS.values())}), articles / "texts.parquet")
    environment = {
        **clean_environment(),
        "PYTHONPATH": str(ROOT / "jobs"),
        "PYSPARK_PYTHON": str(NEWEST.python),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PATH": f"{NEWEST.python.parent}:{os.environ['PATH']}",
        "ENTITYMILL_MODEL": str(ROOT / "models" / "demo"),
        "ARTICLES": str(articles),
    }
    command = [str(NEWEST.python.with_name("spark-pipelines")), "run"]
    return subprocess.run(
        command, cwd=tmp_path / "pipeline", env=environment, capture_output=True, text=True, timeout=300, check=False
    )
