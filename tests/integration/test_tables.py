"""Test the size of data files, leftover files of missing tables, and model files on the driver's disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import settings
from entitymill.errors import OutputError
from entitymill.recognition.sentences import DetectorKind
from entitymill.run.extraction import extract
from entitymill.spark.private_session import override_conf
from entitymill.tables import Tables, output_tables
from entitymill.workers import engine_openvino
from spark_sessions import use_unreachable_file_system

from .conftest import ROOT, Job

TEXTS = [("a", "Angela Merkel met Emmanuel Macron in Paris."), ("b", "The United Nations met in New York.")]


def test_large_labels_are_split_at_about_the_target_size(job: Job, spark: SparkSession) -> None:
    tables = Tables(spark, settings.load(None, job.options("output.target_file_mb=1"), {}).output)
    key = F.sha2(F.col("id").cast("string"), 256).alias("doc_id")
    label = F.when(F.col("id") % 100 == 0, "LOC").otherwise("PER").alias("label")
    place = job.output / "sized"
    # Hashes do not compress, so they are as large in a file as in a shuffle. Spark can split a partition only between the
    # outputs of different tasks, so use many tasks.
    rows = spark.range(0, 400_000, 1, 16).select(key, label)
    with override_conf(spark, output_tables.build_write_confs(tables.settings)):
        tables.fit_file_size(rows, by="label").write.partitionBy("label").parquet(str(place))
    files = {name: list((place / f"label={name}").glob("*.parquet")) for name in ("LOC", "PER")}
    sizes = {name: [path.stat().st_size for path in paths] for name, paths in files.items()}
    assert len(sizes["LOC"]) == 1
    assert len(sizes["PER"]) > 2
    assert max(sizes["PER"]) < 4_000_000


@pytest.mark.deep
def test_files_of_a_table_that_the_catalog_does_not_know(job: Job, spark: SparkSession) -> None:
    """If a run died while it created a managed table, the next run must use the directory, but only if it has no data."""
    schema = "leftover_out"
    place = Path(spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:")) / f"{schema}.db"  # type: ignore[union-attr]
    others = [option for option in job.texts(TEXTS[:1]).options() if not option.startswith("output.path")]
    loaded = settings.load(None, [*others, f"output.schema={schema}"], {})
    (place / "rejects" / "_delta_log").mkdir(parents=True)
    extract(spark, loaded)
    assert spark.read.table(f"{schema}.documents").count() == 1

    # Leave the files of a run that died after the table's first commit and before its entry in the catalog.
    rejects = place / "rejects"
    first = (rejects / "_delta_log" / f"{0:020}.json").read_text()
    spark.sql(f"DROP TABLE {schema}.rejects")
    (rejects / "_delta_log").mkdir(parents=True)
    (rejects / "_delta_log" / f"{0:020}.json").write_text(first)
    (rejects / "_delta_log" / f"{0:020}.crc").write_text("{}")  # Delta writes it before the table is in the catalog
    extract(spark, loaded, full=True)
    assert spark.read.table(f"{schema}.rejects").count() == 0
    assert (rejects / "_delta_log" / f"{0:020}.json").read_text() == first, "another run may have continued from it"

    spark.sql(f"DROP TABLE {schema}.rejects")
    shutil.rmtree(rejects)
    spark.range(1).write.format("delta").save(str(place / "rejects"))
    with pytest.raises(
        OutputError, match=rf"{schema}\.rejects is not in the catalog, but its files are still in .*Move .*/rejects away"
    ):
        extract(spark, loaded, full=True)


def test_a_model_on_the_drivers_disk_is_found_whatever_the_default_file_system(spark: SparkSession, tmp_path: Path) -> None:
    """Local paths of models must work if the default file system is another one, as on YARN and Databricks."""
    demo, detector = tmp_path / "ä b" / "demo", tmp_path / "ä" / "sentence_detector"
    for copy in (demo, detector):
        shutil.copytree(ROOT / "models" / copy.name, copy)
    with use_unreachable_file_system(spark):
        model = engine_openvino.ship_model(spark, str(demo))
        chosen: tuple[DetectorKind, str] = ("dl", str(detector))
        assert engine_openvino.identify_detector(spark, *chosen).startswith("dl ")
        assert engine_openvino.ship_detector(spark, *chosen).digests
    assert model.manifest.name
    shutil.copytree(detector, tmp_path / "ä b" / "detector")
    blank: tuple[DetectorKind, str] = ("dl", str(tmp_path / "ä b" / "detector"))
    assert engine_openvino.ship_detector(spark, *blank).digests
