"""Files of a directory where others write meanwhile."""

import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from entitymill.platform import storage
from entitymill.run import dry_runs
from entitymill.tables import Tables, table_setup

from .conftest import tables_at


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


@pytest.mark.parametrize("scheme", ["", "file:", "file://"])
def test_a_dry_run_takes_away_all_the_directories_that_it_made(spark: SparkSession, tmp_path: Path, scheme: str) -> None:
    dry_runs._try_output(tables_at(spark, tmp_path, f"output.path={scheme}{tmp_path}/a/b/out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("filled", [False, True])
def test_a_dry_run_takes_away_what_it_made_and_nothing_of_others(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    """Where the output is not there yet, another run may fill it meanwhile."""
    output, check = tmp_path / "out", table_setup.check_place
    file = output / "runs" / "part-0.parquet"

    def beside_another(of: Tables) -> None:
        check(of)
        assert output.is_dir()
        if filled:
            file.parent.mkdir()
            file.write_text("a row")

    monkeypatch.setattr(table_setup, "check_place", beside_another)
    dry_runs._try_output(tables)
    assert (output.exists(), file.exists()) == (filled, filled)
    storage.remove_empty(tables.spark, str(tmp_path / "never"))
