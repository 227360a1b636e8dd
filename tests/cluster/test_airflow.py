"""Test the cluster entry of docs/airflow.md: `airflow dags test` on the driver's host must write tables to the lake."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from page_code import read_code_block

from .conftest import MASTER_PORT, SECRETS, Cluster
from .servers import ROOT

AIRFLOW = ROOT / ".venv-airflow" / "bin" / "airflow"
ROWS = 20


def environment(cluster: Cluster, home: Path) -> dict[str, str]:
    """Return the environment of an Airflow worker, with the connection of docs/airflow.md, and credentials for the lake."""
    master = {"conn_type": "spark", "host": f"spark://master:{MASTER_PORT}"}
    return {
        **cluster.driver.environment(),
        **SECRETS,
        "AWS_ENDPOINT_URL": f"http://{cluster.lake}",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
        "AIRFLOW_CONN_SPARK_CLUSTER": json.dumps(master),
        "ENTITYMILL_TABLES": str(home / "tables.yaml"),
        "HOME": str(home),
    }


def write_entry(cluster: Cluster, home: Path) -> None:
    """Write the entry of docs/airflow.md, a config and a property file; the page's own command makes the property file."""
    entries = yaml.safe_load(read_code_block("docs/airflow.md", "connection: spark_cluster"))
    [entry] = entries["tables"]
    entry |= {"config": str(home / "articles.yaml"), "output": {"path": "s3a://lake/scheduled"}}
    entry["spark_submit"]["properties_file"] = str(home / "submit.conf")
    (home / "tables.yaml").write_text(yaml.safe_dump(entries))
    cluster.write_settings(home / "articles.yaml", "scheduled", {"log": str(home / "job.log"), "source": {
        "format": "parquet", "path": "s3a://lake/scheduled_texts",
    }})  # fmt: skip
    line = next(
        line for line in read_code_block("docs/airflow.md", "make package").splitlines() if line.startswith("cat conf/")
    )
    (home / "s3.conf").write_text(cluster.s3_properties(cores=1))
    line = line.replace("conf/s3.conf", str(home / "s3.conf")).replace("build/submit.conf", str(home / "submit.conf"))
    subprocess.run(["bash", "-euc", line], cwd=ROOT, check=True)


def test_a_scheduled_table_goes_through_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    assert AIRFLOW.is_file(), "run `make test-cluster`: it makes Airflow's environment"
    texts = cluster.scratch / "more" / "scheduled_texts"
    texts.mkdir(parents=True)
    pq.write_table(pq.read_table(ROOT / "data" / "state_union.parquet").slice(0, ROWS), texts / "part.parquet")
    cluster.on_hub("fill", str(texts.parent))
    write_entry(cluster, tmp_path)

    def airflow(*arguments: str) -> str:
        done = subprocess.run(
            cluster.driver.command(str(AIRFLOW), *arguments, alone=False),
            env=environment(cluster, tmp_path), capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    airflow("db", "migrate")
    shown = airflow("dags", "test", "extract_articles", "2026-11-02")

    documents = cluster.read("scheduled/documents").to_pylist()
    assert (len(documents), {row["status"] for row in documents}) == (ROWS, {"done"})
    entities = cluster.read("scheduled/entities")
    assert entities.num_rows == sum(row["entities"] for row in documents) > ROWS
    # The check read the tables on the lake, and reports their numbers.
    assert f"| entities | {entities.num_rows} |" in shown
    assert SECRETS["AWS_SECRET_ACCESS_KEY"] not in shown
