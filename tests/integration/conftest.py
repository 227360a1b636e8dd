from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import Row as SparkRow
from pyspark.sql import functions as F

from entitymill import settings
from entitymill.run.extraction import extract
from entitymill.run.summary import Summary
from entitymill.tables import Tables
from entitymill.workers.engine_choice import open_engine
from expected_tables import TEXT_POOL, ExpectedTables

ROOT = Path(__file__).parents[2]
MODELS = [f"model.path={ROOT}/models/demo", f"segmentation.model={ROOT}/models/sentence_detector"]
Row = tuple[str | None, str | None]


@dataclass
class Job:
    """Writes a small source table, runs the job on it, and reads the output; all files are in one directory."""

    spark: SparkSession
    directory: Path

    @property
    def output(self) -> Path:
        return self.directory / "out"

    def options(self, *overrides: str) -> list[str]:
        source = ["source.format=parquet", f"source.path={self.directory}/texts.parquet"]
        # In a source of few documents, one removed document would exceed the default ratio.
        few = ["spark.partitions=2", "limits.max_removed_ratio=1"]
        return [*source, f"output.path={self.output}", *MODELS, *few, *overrides]

    def run(self, *overrides: str, full: bool = False) -> Summary:
        return extract(self.spark, settings.load(None, self.options(*overrides), {}), full=full)

    def texts(self, rows: list[Row] | pa.Table) -> Job:
        if not isinstance(rows, pa.Table):
            ids, texts = zip(*rows, strict=True) if rows else ((), ())
            rows = pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())})
        pq.write_table(rows, self.directory / "texts.parquet")
        return self

    def read(self, name: str, *overrides: str) -> DataFrame:
        return Tables(self.spark, settings.load(None, self.options(*overrides), {}).output).read(name)

    def mentions(self) -> list[tuple[str, str, str]]:
        rows = self.read("entities").orderBy("doc_id", "begin").collect()
        return [(row.doc_id, row.entity, row.label) for row in rows]

    def rejects(self) -> list[tuple[str | None, str]]:
        return sorted(((row.doc_id, row.code) for row in self.read("rejects").collect()), key=str)


@pytest.fixture
def job(spark: SparkSession, tmp_path: Path) -> Job:
    return Job(spark, tmp_path)


@pytest.fixture(scope="module")
def module_job(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(spark, tmp_path_factory.mktemp("module"))


def recognized(spark: SparkSession, texts: dict[str, str], *overrides: str, partitions: int = 2) -> dict[str, SparkRow]:
    """Recognize texts (doc_id -> text) with the engine, and return a dict doc_id -> row with the columns schemas.RECOGNIZED.

    This takes one Spark job; a run of the job takes about thirty.
    """
    loaded = settings.load(None, ["source.path=x", "output.path=y", *MODELS, *overrides], {})
    rows = spark.createDataFrame(list(texts.items()), "doc_id string, text string")
    rows = rows.withColumns({"text_hash": F.sha2("text", 256), "chars": F.length("text")}).repartition(partitions, "doc_id")
    # Do not sort the rows: Spark would first sample them, and the model would run twice.
    return {row.doc_id: row for row in open_engine(spark, loaded).load()(rows).collect()}


@pytest.fixture(scope="session")
def truth(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ExpectedTables:
    """Return the expected tables, computed by one clean run over all texts of TEXT_POOL."""
    clean = Job(spark, tmp_path_factory.mktemp("truth"))
    pool = {f"p{i}": text for i, text in enumerate(TEXT_POOL)}
    clean.texts(list(pool.items())).run()
    return ExpectedTables(clean.output, pool)


@pytest.fixture
def main(job: Job, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the command `extract` in this process, and returns its exit code and stderr."""
    from entitymill.commands import extract as command  # noqa: PLC0415

    def call(*overrides: str, flags: tuple[str, ...] = ()) -> tuple[int, str]:
        arguments = [item for option in job.options(*overrides) for item in ("--set", option)]
        code = command.main([*arguments, "--set", f"log={job.directory}/run.log", *flags])
        return code, capfd.readouterr().err

    return call
