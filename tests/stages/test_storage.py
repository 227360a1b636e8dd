"""Files of a directory where others write meanwhile."""

import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill.platform import storage


def test_files_that_vanish_while_they_are_listed_are_no_error(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "stays").write_text("here")
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            passing = [tmp_path / f"passing-{number}" for number in range(4)]
            for file in passing:
                file.write_text("gone soon")
            over.wait(0.01)
            for file in passing:
                file.unlink()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        listings = [[file for file, *_ in storage.files(spark, str(tmp_path))] for _ in range(60)]
    finally:
        over.set()
        writer.join()
    assert all(f"file:{tmp_path}/stays" in listing for listing in listings)


def test_a_directory_that_is_missing_is_one(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list(storage.files(spark, str(tmp_path / "missing")))
