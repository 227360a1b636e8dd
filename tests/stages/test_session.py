"""What runs of one process share: a session's properties."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyspark import SparkFiles
from pyspark.sql import SparkSession

from bench import stub
from entitymill.errors import SourceError
from entitymill.platform import session
from entitymill.platform.session import in_turn
from entitymill.run import extraction

from .conftest import chosen


def test_of_two_runs_in_one_session_the_second_waits(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "open_engine", stub.open_stub)
    ended = {spark: threading.Event(), spark.newSession(): threading.Event()}

    def run(session: SparkSession) -> None:
        with pytest.raises(SourceError, match="nothing is at"):
            extraction.extract(session, chosen(tmp_path, f"source.path={tmp_path}/nothing"))
        ended[session].set()

    threads = [threading.Thread(target=run, args=(session,)) for session in ended]
    with in_turn(spark), in_turn(spark):  # also inside of itself
        for thread in threads:
            thread.start()
        mine, other = ended.values()
        assert other.wait(30)
        assert not mine.wait(3)
    assert mine.wait(30)
    for thread in threads:
        thread.join()


NAME = "a-file-of-this-test"


def test_a_second_copy_of_a_file_is_removed_and_the_first_is_what_tasks_find(spark: SparkSession) -> None:
    """As each run of a notebook brings its copy of the model: Spark's file server reads the first as long as it lives."""
    copies = [session.scratch("entitymill-test-") / NAME for _ in range(2)]
    for number, copy in enumerate(copies):
        copy.write_text(f"copy {number}")
        session.send(spark, copy)

    assert [copy.exists() for copy in copies] == [True, False]
    tasks = spark.sparkContext.parallelize(range(2), 2)
    assert tasks.map(lambda _: Path(SparkFiles.get(NAME)).read_text()).collect() == ["copy 0"] * 2

    # What lies there is sent no second time, and is no copy of itself.
    session.send(spark, copies[0])
    assert copies[0].exists()
