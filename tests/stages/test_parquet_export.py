"""Test the Parquet export of `entities`: what readers see, and what remains after runs that die, freeze or overlap."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from entitymill.errors import OutputError
from entitymill.spark import storage
from entitymill.tables import Tables, parquet_export, table_setup

from .conftest import Writing, tables_at

SIX = [(f"d{i}", f"Anna Berlin {i}") for i in range(6)]
PARQUET = "output.format=parquet"


@pytest.fixture(scope="module")
def with_export(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export an output of six documents under epoch 1, for tests to copy: a copy takes less time than an export."""
    place = tmp_path_factory.mktemp("six")
    writing = Writing(tables_at(spark, place, PARQUET))
    writing.publish(*SIX, known=False)
    parquet_export.export(writing.tables, 1, agree)
    return place


@pytest.fixture
def writing(spark: SparkSession, with_export: Path, tmp_path: Path) -> Writing:
    shutil.copytree(with_export, tmp_path, dirs_exist_ok=True)
    holding = Writing(tables_at(spark, tmp_path, PARQUET))
    holding.epoch = 2
    return holding


def agree() -> None:
    """Confirm that no other run took over."""


def root(tables: Tables) -> Path:
    return Path(str(tables.root).removeprefix("file:"))


def names(tables: Tables) -> set[str]:
    return {path.name for path in root(tables).iterdir()}


def exported(tables: Tables) -> list[tuple[str, ...]]:
    """Return the rows that a reader without Delta sees."""
    rows = pq.read_table(root(tables) / "entities").to_pylist()
    return sorted((row["doc_id"], row["entity"], str(row["label"]), row["run_id"]) for row in rows)


def of_delta(tables: Tables) -> list[tuple[str, ...]]:
    rows = tables.read("entities").select("doc_id", "entity", "label", "run_id").collect()
    return sorted(tuple(row) for row in rows)


def marker(tables: Tables) -> dict[str, int]:
    return dict(json.loads((root(tables) / "entities" / "_entitymill_export.json").read_text()))


TABLES = {"entities", "entities_delta", "documents", "rejects"}


def test_an_export_has_the_rows_and_columns_of_the_delta_table(writing: Writing) -> None:
    tables = writing.tables
    assert exported(tables) == of_delta(tables)
    assert len(exported(tables)) == 2 * len(SIX)
    columns = set(pq.read_table(root(tables) / "entities").column_names)
    assert columns == set(tables.read("entities").columns)
    assert {path.name for path in (root(tables) / "entities").glob("label=*")} == {"label=PER", "label=LOC"}
    assert names(tables) == TABLES


def test_an_export_is_outdated_once_the_delta_table_has_a_newer_version(writing: Writing) -> None:
    tables = writing.tables
    assert parquet_export.is_current(tables)
    writing.publish(("d1", "Bob Cairo x"), known=True, removed=("d2",))
    assert not parquet_export.is_current(tables)
    parquet_export.export(tables, 2, agree)
    assert parquet_export.is_current(tables)
    assert exported(tables) == of_delta(tables)
    detail = tables.detail("entities")
    assert detail is not None
    assert marker(tables) == {"epoch": 2, "version": tables.version("entities"), "table": detail["id"]}
    assert names(tables) == TABLES


def test_nothing_is_left_of_labels_that_are_found_no_more(writing: Writing) -> None:
    tables = writing.tables
    writing.publish(known=True, removed=tuple(key for key, _ in SIX))
    parquet_export.export(tables, 2, agree)
    assert parquet_export.is_current(tables)
    assert not list((root(tables) / "entities").glob("label=*"))


class Died(BaseException):
    pass


@pytest.mark.parametrize("renames", [0, 1])
def test_a_swap_that_died_is_undone_and_done_again(writing: Writing, monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    """A run dies before or between its two renames. The next run must restore the old export, and then replace it."""
    tables, before = writing.tables, exported(writing.tables)
    writing.publish(("d1", "Bob Cairo x"), known=True)
    rename, done = storage.rename, list[object]()

    def dies(*arguments: object) -> bool:
        if len(done) == renames:
            raise Died
        done.append(arguments)
        return rename(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(storage, "rename", dies)
        with pytest.raises(Died):
            parquet_export.export(tables, 2, agree)
    assert (root(tables) / "entities").exists() == (renames == 0)

    parquet_export.restore_previous(tables)
    assert exported(tables) == before
    assert not parquet_export.is_current(tables)
    parquet_export.export(tables, 3, agree)
    assert exported(tables) == of_delta(tables)
    assert names(tables) == TABLES


def test_a_swap_that_died_after_both_renames_is_whole(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = writing.tables
    writing.publish(("d1", "Bob Cairo x"), known=True)
    rename, done = storage.rename, []

    def dies(*arguments: object) -> bool:
        done.append(rename(*arguments))  # type: ignore[arg-type]
        if len(done) == 2:
            raise Died
        return True

    with monkeypatch.context() as patched:
        patched.setattr(storage, "rename", dies)
        with pytest.raises(Died):
            parquet_export.export(tables, 2, agree)
    parquet_export.restore_previous(tables)
    assert parquet_export.is_current(tables)
    assert exported(tables) == of_delta(tables)
    writing.publish(("d1", "Cleo Delhi x"), known=True)
    parquet_export.export(tables, 3, agree)
    assert names(tables) == TABLES


@pytest.mark.parametrize("cleans", [True, False], ids=["whole", "dead before it cleaned up"])
def test_an_older_epochs_export_does_not_stay(writing: Writing, monkeypatch: pytest.MonkeyPatch, *, cleans: bool) -> None:
    """A run freezes between its last check of the lease and its renames, and meanwhile the next run exports."""
    tables = writing.tables
    looks: list[str] = []

    def next_run_comes() -> None:
        looks.append("look")
        if len(looks) == 1:
            writing.publish(("d1", "Bob Cairo x"), known=True)
            with monkeypatch.context() as patched:
                if not cleans:
                    patched.setattr(storage, "remove", lambda *_: None)
                parquet_export.export(tables, 3, agree)
        else:
            raise OutputError("output: run next took over")

    with pytest.raises(OutputError, match="took over"):
        parquet_export.export(tables, 2, next_run_comes)
    assert marker(tables)["epoch"] == 3
    assert parquet_export.is_current(tables)
    assert exported(tables) == of_delta(tables)


def test_what_another_program_writes_just_before_the_renames_is_put_back(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, rename = writing.tables, storage.rename
    place = root(tables) / "entities"
    renamed: list[object] = []

    def rename_late(*arguments: object) -> object:
        renamed.append(arguments)
        if len(renamed) == 1:
            shutil.rmtree(place)
            place.mkdir()
            (place / "mine.parquet").write_bytes(b"mine")
        return rename(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "rename", rename_late)
    with pytest.raises(OutputError, match="was not written by this program as a Parquet export"):
        parquet_export.export(tables, 2, agree)
    assert [file.name for file in place.iterdir()] == ["mine.parquet"]


def test_an_export_that_its_run_is_deleting_is_not_put_back(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen run may move a later run's export to a name that the later run deletes.

    If it put the rest back, there would be an export without a marker file, which every run refuses.
    """
    tables, rename = writing.tables, storage.rename
    asked: list[object] = []

    def rename_and_delete_a_part(spark: SparkSession, path: str, to: str) -> bool:
        renamed = rename(spark, path, to)
        for marker_file in root(tables).glob("_replaced_2/_entitymill_export.json"):
            marker_file.unlink()
        return renamed

    def next_run_came() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise OutputError("run next took over")

    monkeypatch.setattr(storage, "rename", rename_and_delete_a_part)
    with pytest.raises(OutputError, match="run next took over"):
        parquet_export.export(tables, 2, next_run_came)
    monkeypatch.undo()
    parquet_export.check_export(tables)
    parquet_export.export(tables, 3, agree)
    assert exported(tables) == of_delta(tables)


def test_an_export_that_an_older_run_replaced_at_the_end_is_not_taken_for_done(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older run wakes up when this one has checked for the last time that no other run took over."""
    tables, listed = writing.tables, Tables.list_temporary

    def list_late(self: Tables, prefix: str) -> list[str]:
        (root(tables) / "entities" / "_entitymill_export.json").write_text(json.dumps({**marker(tables), "epoch": 1}))
        return listed(self, prefix)

    monkeypatch.setattr(Tables, "list_temporary", list_late)
    with pytest.raises(OutputError, match=r"export in .*entities is outdated"):
        parquet_export.export(tables, 2, agree)


def test_the_export_that_a_later_run_writes_is_left_alone(writing: Writing) -> None:
    later = root(writing.tables) / "_export_3"
    later.mkdir()
    parquet_export.export(writing.tables, 2, agree)
    assert later.exists()


def test_an_export_of_a_table_that_was_created_again_is_outdated(
    writing: Writing, spark: SparkSession, tmp_path: Path
) -> None:
    tables = writing.tables
    assert parquet_export.is_current(tables)
    other = Writing(tables_at(spark, tmp_path / "other", PARQUET))
    other.publish(*SIX, known=False)
    assert other.tables.version("entities") == tables.version("entities")
    shutil.rmtree(root(tables) / "entities_delta")
    shutil.copytree(root(other.tables) / "entities_delta", root(tables) / "entities_delta")
    tables.forget()
    assert not parquet_export.is_current(tables)


def test_a_run_that_lost_its_lease_exports_nothing(writing: Writing) -> None:
    tables, before = writing.tables, marker(writing.tables)
    writing.publish(("d1", "Bob Cairo x"), known=True)

    def lost() -> None:
        raise OutputError("output: run next took over")

    with pytest.raises(OutputError, match="took over"):
        parquet_export.export(tables, 2, lost)
    assert marker(tables) == before


def test_what_this_program_did_not_write_is_not_replaced(spark: SparkSession, tmp_path: Path) -> None:
    tables = tables_at(spark, tmp_path, PARQUET)
    place = tmp_path / "out" / "entities"
    place.mkdir(parents=True)
    (place / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match="was not written by this program as a Parquet export"):
        table_setup.check_tables(tables)
