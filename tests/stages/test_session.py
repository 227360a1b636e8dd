"""Test what a run needs of a session, and the files that the runs of one process send to executors."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from entitymill.errors import SessionError
from entitymill.spark import files_on_this_machine, session
from entitymill.spark.private_session import override_conf

NAME = "a-file-of-this-test"


def test_a_second_copy_of_a_file_is_removed_and_the_first_is_what_tasks_find(spark: SparkSession) -> None:
    """Each run in a notebook makes its own copy of the model, but Spark's file server keeps serving the first one."""
    copies = [files_on_this_machine.create_scratch_directory("entitymill-test-") / NAME for _ in range(2)]
    for number, copy in enumerate(copies):
        copy.write_text(f"copy {number}")
        session.send_file(spark, copy)

    assert [copy.exists() for copy in copies] == [True, False]
    tasks = spark.sparkContext.parallelize(range(2), 2)
    assert tasks.map(lambda _: Path(SparkFiles.get(NAME)).read_text()).collect() == ["copy 0"] * 2

    # Sending the first copy again must not remove it.
    session.send_file(spark, copies[0])
    assert copies[0].exists()


def test_a_session_without_deltas_catalog_is_refused(spark: SparkSession) -> None:
    session.check_session(spark)
    with (
        override_conf(spark, {"spark.sql.catalog.spark_catalog": ""}),
        pytest.raises(SessionError, match=r"spark_catalog is not set to .*DeltaCatalog: submit with --properties-file"),
    ):
        session.check_session(spark)
