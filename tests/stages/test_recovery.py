"""Test that a run finds and repairs the documents that a dead run left half published."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from delta.exceptions import ConcurrentAppendException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import schemas
from entitymill.errors import OutputError
from entitymill.run_row import RunRow
from entitymill.spark.private_session import run_statement
from entitymill.tables import Tables, numbered_commits, recovery, temporary_tables
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.publisher import Publisher, Unit, UnitIds
from entitymill.tables.runs import Runs

from .conftest import DAY, SCHEMAS, Writing, frame_of, read_rows, tables_at

TEN = [(f"d{i}", f"Anna Berlin {i}") for i in range(10)]
FOUND = dict[str, tuple[str, str | None]]
"""doc_id -> (run_id, slice)."""


@pytest.fixture(scope="module")
def with_ten(spark: SparkSession, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish ten documents as `run 1`, for tests to copy: a copy takes less time than publishing."""
    place = tmp_path_factory.mktemp("ten")
    tables = tables_at(spark, place)
    Writing(tables).publish(*TEN, known=False)
    Runs(tables).create()
    add_run(tables, "run 1")
    return place


@pytest.fixture
def writing(spark: SparkSession, with_ten: Path, tmp_path: Path) -> Writing:
    shutil.copytree(with_ten, tmp_path, dirs_exist_ok=True)
    holding = Writing(tables_at(spark, tmp_path))
    holding.epoch = 2
    return holding


def add_run(tables: Tables, run_id: str, slice_: str | None = None, *, annotations: bool = False) -> None:
    chosen = json.dumps({"output": {"annotations": annotations}})
    row = RunRow(run_id, DAY, settings=chosen, slice=slice_)
    tables.append(Runs(tables)._build_frame(row), "runs")


class Died(BaseException):
    pass


def die_before(patched: pytest.MonkeyPatch, table: str) -> None:
    """Let runs die just before their first commit to a table."""
    options = Commits._take_commit_number

    def instead(commits: Commits, name: str) -> dict[str, str]:
        if name == table:
            raise Died
        return options(commits, name)

    patched.setattr(Commits, "_take_commit_number", instead)


def publish_half(writing: Writing, *rows: tuple[str, str], removed: tuple[str, ...] = (), known: bool = True) -> None:
    """Publish a unit in a run that dies before its commit to `documents`."""
    with pytest.MonkeyPatch.context() as patched:
        die_before(patched, "documents")
        with pytest.raises(Died):
            writing.publish(*rows, known=known, removed=removed)


def unsound(tables: Tables) -> FOUND:
    rows = recovery.find_unsound_documents(tables).collect()
    found = {row["doc_id"]: (row["run_id"], row["slice"]) for row in rows}
    assert len(found) == len(rows), "each once"
    return found


def pending(tables: Tables) -> FOUND:
    rows = read_rows(tables, "documents")
    return {row["doc_id"]: (row["run_id"], row["slice"]) for row in rows if row["status"] == "pending"}


def versions(tables: Tables) -> dict[str, int]:
    return {name: tables.version(name) for name in SCHEMAS}


def test_whole_units_are_sound(writing: Writing) -> None:
    writing.publish(("d1", "Bob Cairo x"), ("new", "Cleo Delhi x"), known=True, removed=("d2",))
    assert unsound(writing.tables) == {}


def test_a_half_appended_unit_is_found(writing: Writing) -> None:
    publish_half(writing, ("x", "Bob Cairo x"), ("y", "Cleo Delhi x"), known=False)
    assert unsound(writing.tables) == {"x": ("run 2", None), "y": ("run 2", None)}


def test_a_document_must_have_the_mentions_that_its_row_names(writing: Writing) -> None:
    mentions, documents = (writing.tables.sql_name(name) for name in ("entities", "documents"))
    for statement in (
        # d0 has too few mentions.
        f"DELETE FROM {mentions} WHERE doc_id = 'd0' AND label = 'PER'",
        # d1 has too many mentions.
        f"INSERT INTO {mentions} SELECT * FROM {mentions} WHERE doc_id = 'd1' AND label = 'PER'",
        # The mentions of d2 are from two runs.
        f"UPDATE {mentions} SET run_id = 'other' WHERE doc_id = 'd2' AND label = 'PER'",
        # The mentions of d3 are from another run than `documents` says.
        f"UPDATE {documents} SET run_id = 'other' WHERE doc_id = 'd3'",
        # d4 has mentions, but no row in `documents`.
        f"DELETE FROM {documents} WHERE doc_id = 'd4'",
        # d5 is sound, because it is already pending.
        f"UPDATE {documents} SET status = 'pending', entities = 0 WHERE doc_id = 'd5'",
        # d7 is sound: a blank document has no mentions.
        f"UPDATE {documents} SET status = 'blank', entities = 0 WHERE doc_id = 'd7'",
        f"DELETE FROM {mentions} WHERE doc_id = 'd7'",
    ):
        writing.tables.spark.sql(statement)
    found = {f"d{number}": ("run 1", None) for number in range(5)}
    assert unsound(writing.tables) == {**found, "d3": ("other", None)}


class Annotated:
    """Publishes documents to one output, each unit as a run with or without annotations."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.epoch = tables, 1
        self.writing = Writing(tables)

    def publish(self, *rows: tuple[str, str], annotations: bool = True, known: bool = True) -> None:
        commits = Commits(self.tables, f"run {self.epoch}", self.epoch)
        wanted = {**SCHEMAS, "annotations": schemas.ANNOTATION_TABLE} if annotations else SCHEMAS
        recovery.create_missing(self.tables, wanted)
        self.writing.epoch = self.epoch
        publisher = Publisher(self.tables, commits, self.writing.provenance(), [], annotations=annotations)
        add_run(self.tables, f"run {self.epoch}", annotations=annotations)
        self.epoch += 1
        frame = self.writing.recognized(*rows)
        if annotations:
            frame = frame.withColumns({field.name: F.lit(None).cast(field.dataType) for field in schemas.ANNOTATIONS})
        ids = [key for key, _ in rows]
        publisher.publish(Unit(frame, known, UnitIds(min(ids), max(ids), ids)))


@pytest.mark.deep
def test_annotations_must_be_of_the_run_that_documents_names(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tables_at(spark, tmp_path)
    Runs(tables).create()
    runs = Annotated(tables)
    runs.publish(*TEN[:4], known=False)
    runs.publish(("d1", "Bob Cairo x"), annotations=False)  # removes the annotations of d1
    assert unsound(tables) == {}

    # d0 has new annotations and old mentions, d2 old mentions and no annotations, and `new` has only annotations.
    with monkeypatch.context() as patched:
        die_before(patched, "entities")
        with pytest.raises(Died):
            runs.publish(("d0", "Bob Cairo x"))
        with pytest.raises(Died):
            runs.publish(("d2", "Bob Cairo x"), annotations=False)
        with pytest.raises(Died):
            runs.publish(("new", "Bob Cairo x"))
    assert unsound(tables) == {"d0": ("run 1", None), "d2": ("run 1", None), "new": ("run 5", None)}

    recovery.settle(tables, Commits(tables, "run 10", 10))
    runs.epoch = 11
    runs.publish(("d0", "Bob Cairo x"), ("d2", "Bob Cairo x"), ("new", "Bob Cairo x"))
    assert unsound(tables) == {}
    assert pending(tables) == {}

    tables.spark.sql(f"DELETE FROM {tables.sql_name('runs')} WHERE run_id = 'run 1'")
    assert unsound(tables) == {}, "a document whose run is no longer in `runs` may have annotations"


def test_a_half_published_unit_is_found_planned_and_settled(writing: Writing) -> None:
    """A run changed `entities` but not `documents`: it replaced d1, removed d2 and added `new`."""
    tables = writing.tables
    publish_half(writing, ("d1", "Bob Cairo x"), ("new", "Cleo Delhi x"), removed=("d2",))
    add_run(tables, "run 2", "monday")
    found = {"d1": ("run 1", None), "d2": ("run 1", None), "new": ("run 2", "monday")}
    assert unsound(tables) == found

    # A dry run reads the documents as if they were settled, and writes nothing.
    before = versions(tables)
    known = {row["doc_id"]: row["status"] for row in recovery.read_settled_documents(tables).collect()}
    assert known == {**{key: "done" for key, _ in TEN}, **dict.fromkeys(found, "pending")}
    assert versions(tables) == before

    mentions = writing.held()[0]
    assert recovery.settle(tables, Commits(tables, "run 3", 3)) == 3
    assert pending(tables) == found
    assert writing.held()[0] == mentions, "what was published stays until it is recomputed"

    # A second settling, as after the death of that run, changes nothing.
    rows = read_rows(tables, "documents")
    assert recovery.settle(tables, Commits(tables, "run 4", 4)) == 0
    assert sorted(read_rows(tables, "documents"), key=str) == sorted(rows, key=str)

    writing.epoch = 5
    writing.publish(("d1", "Bob Cairo x"), ("new", "Cleo Delhi x"), known=True, removed=("d2",))
    assert (unsound(tables), pending(tables)) == ({}, {})
    assert sorted(writing.held()[1]) == sorted([*(key for key, _ in TEN if key != "d2"), "new"])


def test_runs_are_undisturbed_since_the_last_change_by_others(writing: Writing) -> None:
    tables = writing.tables
    for key in ("x", "y"):
        writing.publish((key, "Anna in Rome"), known=False)
    runs = frozenset({"run 1", "run 2", "run 3", "run that committed nothing"})
    tables.spark.sql(f"OPTIMIZE {tables.sql_name('entities')}")
    assert recovery.select_undisturbed_runs(tables, runs) == {"run 1", "run 2", "run 3"}
    tables.spark.sql(f"UPDATE {tables.sql_name('entities')} SET label = 'ORG' WHERE doc_id = 'x'")
    writing.publish(("z", "Anna in Rome"), known=False)
    assert recovery.select_undisturbed_runs(tables, runs | {"run 4"}) == {"run 4"}


def test_settling_fences_every_table(writing: Writing) -> None:
    """After settling, Delta must skip what a frozen run commits when it wakes up."""
    frozen = [Commits(writing.tables, "frozen", 2) for _ in SCHEMAS]
    commits = Commits(writing.tables, "run 3", 3)
    recovery.settle(writing.tables, commits)
    assert commits.settled
    for late, name in zip(frozen, SCHEMAS, strict=True):
        version = writing.tables.version(name)
        one = frame_of(writing.tables.spark, [("late",)], "doc_id string")
        late.append(one, name)
        delete = f"DELETE FROM {writing.tables.sql_name(name)}"
        late.execute(name, partial(run_statement, writing.tables.spark, delete))
        late.replace(one, name)
        assert writing.tables.version(name) == version
        with pytest.raises(OutputError, match="a later run has written"):
            late.fence(name)


def test_a_change_that_did_not_end_leaves_the_run_unsettled(writing: Writing) -> None:
    commits = Commits(writing.tables, "run 2", 2)
    assert not commits.settled, "nobody has looked at the tables yet"
    commits.earlier_runs_settled = True
    assert commits.settled

    def dies(**_: object) -> None:
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        commits.execute("documents", dies)
    assert not commits.settled


@pytest.mark.parametrize(("after_conflict", "expected"), [(True, 2), (False, 1)])
def test_a_commit_that_must_not_follow_another_writers_is_tried_once(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, *, after_conflict: bool, expected: int
) -> None:
    """The first row of a run: the rows that it keeps were read before the other writer committed."""
    monkeypatch.setattr(numbered_commits, "PAUSE_SECONDS", 0)
    tries: list[int] = []

    def conflict() -> None:
        tries.append(len(tries))
        raise ConcurrentAppendException("another writer was faster", "")

    with pytest.raises(ConcurrentAppendException):
        numbered_commits.retry("runs", conflict, 2, after_conflict=after_conflict)
    assert len(tries) == expected


@pytest.mark.parametrize("lost", ["entities", "documents"])
def test_a_table_that_is_created_later_is_fenced_and_its_documents_are_marked(writing: Writing, lost: str) -> None:
    """Without a fence, a frozen first run could write to the table that the second run created."""
    shutil.rmtree(Path(writing.tables.address(lost).removeprefix("file:")))
    writing.tables.forget()
    assert recovery.create_missing(writing.tables, SCHEMAS)
    assert not recovery.create_missing(writing.tables, SCHEMAS)
    recovery.settle(writing.tables, Commits(writing.tables, "run 3", 3))
    assert len(pending(writing.tables)) == len(TEN)
    late = frame_of(writing.tables.spark, [("late",)], "doc_id string")
    version = writing.tables.version(lost)
    Commits(writing.tables, "frozen", 2).append(late, lost)
    assert writing.tables.version(lost) == version


def test_the_texts_and_results_of_dead_runs_are_removed(writing: Writing) -> None:
    root = Path(str(writing.tables.root).removeprefix("file:"))
    for name in ("_units_1", "_units_2", "_units_2_results_1", "_units_3"):
        (root / name).mkdir()
    temporary_tables.remove_leftovers(writing.tables, 3)
    assert [path.name for path in root.glob("_units*")] == ["_units_3"]
