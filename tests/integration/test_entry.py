"""The entry script as users start it: spark-submit with this repository's own defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable as DeltaReader

from .conftest import ROOT, Job


def test_spark_submit_runs_the_same_job(job: Job) -> None:
    job.texts([("a", "Angela Merkel met Emmanuel Macron in Paris.")])
    submit = Path(sys.executable).with_name("spark-submit")
    jars = ",".join(str(jar) for jar in sorted((ROOT / "build" / "jars").glob("*.jar")))
    spark = ["--master", "local[2]", "--properties-file", str(ROOT / "conf" / "spark-defaults.conf"), "--jars", jars]
    overrides = [item for option in job.options() for item in ("--set", option)]
    # Set where this session's own JVM was started; spark-submit starts another.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    environment |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}

    done = subprocess.run(
        [str(submit), *spark, "--driver-memory", "2g", str(ROOT / "jobs" / "extract_entities.py"), *overrides],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    assert "sentences/s" in done.stdout
    table = DeltaReader(str(job.output / "entities")).to_pyarrow_table().sort_by("begin")
    assert table["entity"].to_pylist() == ["Angela Merkel", "Emmanuel Macron", "Paris"]
