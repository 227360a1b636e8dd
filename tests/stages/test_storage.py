"""Test storage that others change at the same time, that refuses access, or that does not answer."""

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.errors import SourceError, StorageError
from entitymill.run import dry_runs
from entitymill.settings.sections import SourceSettings
from entitymill.source import reader
from entitymill.source.reader import open_source
from entitymill.spark import storage
from entitymill.tables import Tables, heartbeats, maintenance, table_setup
from entitymill.tables.runs import Runs

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
        listings = [[file for file, *_ in storage.list_files(spark, str(tmp_path))] for _ in range(60)]
    finally:
        over.set()
        writer.join()
    assert all(f"file:{tmp_path}/stays" in listing for listing in listings)


@pytest.mark.parametrize("name", ["josé tmp", "100%", "a[1]"])
def test_a_file_is_copied_to_a_directory_with_any_name(spark: SparkSession, tmp_path: Path, name: str) -> None:
    """TMPDIR may be such a directory."""
    (tmp_path / name).mkdir()
    (tmp_path / "there").write_text("content")
    storage.fetch(spark, f"{tmp_path}/there", tmp_path / name / "here")
    assert (tmp_path / name / "here").read_text() == "content"


def test_a_directory_that_is_missing_is_one(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list(storage.list_files(spark, str(tmp_path / "missing")))


@pytest.mark.parametrize("scheme", ["", "file:", "file://"])
def test_a_dry_run_takes_away_all_the_directories_that_it_made(spark: SparkSession, tmp_path: Path, scheme: str) -> None:
    dry_runs._check_output(tables_at(spark, tmp_path, f"output.path={scheme}{tmp_path}/a/b/out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("filled", [False, True])
def test_a_dry_run_takes_away_what_it_made_and_nothing_of_others(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    """A dry run creates the output directory if it is missing. Files of a run that starts meanwhile must stay."""
    output, check = tmp_path / "out", table_setup.check_writable
    file = output / "runs" / "part-0.parquet"

    def beside_another(of: Tables) -> None:
        check(of)
        assert output.is_dir()
        if filled:
            file.parent.mkdir()
            file.write_text("a row")

    monkeypatch.setattr(table_setup, "check_writable", beside_another)
    dry_runs._check_output(tables)
    assert (output.exists(), file.exists()) == (filled, filled)
    storage.remove_empty(tables.spark, str(tmp_path / "never"))


def test_files_that_nobody_may_list_are_not_counted(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    list_files = storage.list_files

    def refuse_tables(spark: SparkSession, path: str) -> Iterator[tuple[str, int, int]]:
        if not path.endswith(heartbeats.DIRECTORY):
            raise StorageError("s3a://lake: the storage refuses these credentials")
        return list_files(spark, path)

    Runs(tables).create()
    monkeypatch.setattr(storage, "list_files", refuse_tables)
    chosen = settings.load(None, ["source.path=x", f"output.path={tables.settings.path}"], {})
    [change] = maintenance.vacuum(tables, chosen, 24)
    assert (change.name, change.before[2], change.after[2]) == ("runs", None, None)


@pytest.mark.parametrize("there", [True, False])
def test_a_schema_is_made_where_it_is_missing_alone(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A user who may only create tables in the schema is refused CREATE SCHEMA, even if the schema exists."""
    tables = tables_at(spark, tmp_path, f"output.schema=lake_{there}".lower(), "output.path=null")
    if there:
        spark.sql("CREATE SCHEMA lake_true")
    sql = Mock(side_effect=spark.sql)
    monkeypatch.setattr(SparkSession, "sql", sql)
    table_setup.check_writable(tables)
    assert (spark.catalog.databaseExists(f"lake_{there}"), sql.call_count) == (True, int(not there))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("java.net.UnknownHostException: s3a://lake: host", StorageError, "the storage cannot be reached"),
        ("no such column", SourceError, "source.path: "),
    ],
)
def test_a_table_whose_storage_does_not_answer_is_not_a_bad_source(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception], message: str
) -> None:
    def fails(*_: object) -> None:
        raise PySparkException(text)

    monkeypatch.setattr(reader, "describe_delta", fails)
    with pytest.raises(kind, match=message):
        open_source(spark, SourceSettings(path="lake.texts", format="table"))
