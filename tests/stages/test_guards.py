"""Test which removals a run refuses, and when it considers the output and the source unchanged since the last run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from entitymill.errors import OutputError, RejectedError
from entitymill.run import guards
from entitymill.run.summary import Summary
from entitymill.run_row import RunRow
from entitymill.settings import load
from entitymill.source import changes
from entitymill.source.changes import Mode, Policy
from entitymill.source.reader import Source
from entitymill.tables import Tables, recovery, table_setup
from entitymill.tables.output_tables import DOCUMENT_TABLES, PROPERTY
from entitymill.tables.publisher import Provenance
from entitymill.tables.recovery import tables_unchanged_since as unchanged_since
from entitymill.tables.runs import Record

from .conftest import DAY, SCHEMAS, Writing, chosen, tables_at

TEN = [(f"d{i}", f"Anna Berlin {i}") for i in range(10)]
WRITTEN = tuple(SCHEMAS)


@pytest.fixture(scope="module")
def ten(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return an output of ten documents, which no test changes."""
    writing = Writing(tables_at(spark, tmp_path_factory.mktemp("ten")))
    writing.publish(*TEN, known=False)
    return writing.tables


@pytest.fixture(scope="module")
def sliced(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return an output with eight documents in the slice mon and two in the slice tue, which no test changes."""
    writing = Writing(tables_at(spark, tmp_path_factory.mktemp("sliced")), "mon")
    writing.publish(*TEN[:8], known=False)
    writing.slice = "tue"
    writing.publish(*TEN[8:], known=False)
    return writing.tables


def stopped(gone: int, of: int) -> AbstractContextManager[Any]:
    said = rf"{gone} of the {of} documents of .*/out are no longer in x, .*max_removed_ratio: 0\.2` allows"
    return pytest.raises(RejectedError, match=said)


def check(tables: Tables, found: changes.Changes, slice_: str | None = None) -> None:
    guards.check_removals(chosen(Path("/"), "limits.max_removed_ratio=0.2"), tables, found, slice_)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("left", "stops"), [(7, True), (8, False)])
def test_more_gone_than_allowed(ten: Tables, source_of: Callable[..., Source], full: bool, left: int, stops: bool) -> None:
    policy = Policy("f1", "reprocess", None, full=full)
    found = changes.compare_all(source_of(*TEN[:left], ("new", "Bob Cairo x")), ten.read("documents"), policy)
    assert found.to_recognize == (left + 1 if full else 1)
    with stopped(10 - left, 10) if stops else nullcontext():
        check(ten, found)
    found.close()


def test_a_first_run_removes_nothing(tables: Tables, source_of: Callable[..., Source]) -> None:
    check(tables, changes.select_all_documents(source_of(), Mode.FIRST))


def test_a_slice_counts_its_own_documents_alone(sliced: Tables, source_of: Callable[..., Source]) -> None:
    def check_one(slice_: str, rows: list[tuple[str, str]]) -> None:
        policy = Policy("f1", "reprocess", slice_)
        found = changes.compare_all(source_of(*rows), sliced.read("documents"), policy)
        check(sliced, found, slice_)
        found.close()

    with stopped(1, 2):
        check_one("tue", TEN[8:9])
    check_one("mon", TEN[:7])


def copied(tables: Tables, directory: Path) -> Tables:
    """Copy an output, and return the copy. A Delta log names files relative to the table, so the copy is valid."""
    shutil.copytree(str(tables.root).removeprefix("file:"), directory / "out")
    return tables_at(tables.spark, directory)


@pytest.mark.parametrize(
    ("lost", "refused"),
    [
        ((), False),
        (("entities",), True),
        (("documents",), True),
        (("entities", "documents"), False),  # no data is left that the run could lose
    ],
)
def test_one_slice_is_not_recomputed_where_all_have_to_be(
    sliced: Tables, tmp_path: Path, lost: tuple[str, ...], refused: bool
) -> None:
    tables = copied(sliced, tmp_path)
    for name in lost:
        shutil.rmtree(tmp_path / "out" / name)
    said = r"a table of .*/out is missing, .* Run once with output\.replace_slice=false, and without source\.where"
    with pytest.raises(OutputError, match=said) if refused else nullcontext():
        guards.check_slice_tables(tables, "tue")
    guards.check_slice_tables(tables, None)


@pytest.mark.parametrize(
    ("statements", "only_we"),
    [
        ((), True),
        (("OPTIMIZE {entities}", "VACUUM {documents}", "OPTIMIZE {documents} ZORDER BY (doc_id)"), True),
        (("DELETE FROM {entities} WHERE doc_id = 'd1'",), False),
        (("OPTIMIZE {entities}", "UPDATE {documents} SET chars = 0 WHERE doc_id = 'd1'", "OPTIMIZE {documents}"), False),
        (("RESTORE {entities} TO VERSION AS OF 1",), False),
    ],
    ids=["nothing", "maintenance", "a deletion", "an update", "a restore"],
)
def test_others_that_changed_rows_are_noticed(
    sliced: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture, statements: tuple[str, ...], *, only_we: bool
) -> None:
    """The output has two units, so that OPTIMIZE has files to compact."""
    tables = copied(sliced, tmp_path)
    latest = RunRow("r1", output_versions=recovery.read_versions(tables, WRITTEN))
    for statement in statements:
        tables.spark.sql(statement.format(**{name: tables.sql_name(name) for name in DOCUMENT_TABLES}))
    assert unchanged_since(tables, latest) == only_we
    assert ("(operations: " in caplog.text) != only_we


def test_a_table_that_was_put_back_created_or_removed_is_noticed(
    sliced: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table from a backup that is older than the last run has a smaller version than the last run recorded."""
    tables = copied(sliced, tmp_path)
    present = recovery.read_versions(tables, WRITTEN)
    assert unchanged_since(tables, RunRow("r1", output_versions=present))
    before = present["entities"] + 1
    assert not unchanged_since(tables, RunRow("r1", output_versions={**present, "entities": before}))
    assert f"(its version {before - 1} is older than version {before}, which a run recorded), so a run must" in caplog.text
    assert not unchanged_since(tables, None)
    assert not unchanged_since(tables, RunRow("r1"))
    without = {name: version for name, version in present.items() if name != "rejects"}
    assert not unchanged_since(tables, RunRow("r1", output_versions=without)), "an older run created it meanwhile"
    shutil.rmtree(tmp_path / "out" / "rejects")
    assert not unchanged_since(tables, RunRow("r1", output_versions=present))


@pytest.mark.parametrize(
    ("changed", "moving", "reason"),
    [
        ({}, False, None),
        ({}, True, "source.where may select different rows in each run"),
        ({"status": "failed"}, False, "run r1 ended with the status failed"),
        ({"scope": "other"}, False, "run r1 read another table or slice, or had other settings of the source"),
        ({"fingerprint": "other"}, False, "run r1 had another model, or other values of settings that decide the results"),
        ({"settled": False}, False, "the latest run did not complete its changes"),
    ],
)
def test_a_run_goes_on_only_from_a_whole_one_with_the_same_settings(
    source_of: Callable[..., Source], changed: dict[str, Any], *, moving: bool, reason: str | None
) -> None:
    last = replace(RunRow("r1", status="done", scope="s", fingerprint="f1", settled=True), **changed)
    summary, provenance = Summary("r2", DAY, scope="s"), Provenance("r2", DAY, "/texts", "m", "f1", "1")
    source = replace(source_of(), nondeterministic=moving)
    assert guards.explain_distrust_of_last_run(Record(last=last, latest=last), summary, provenance, source) == reason
    assert guards.explain_distrust_of_last_run(Record(), summary, provenance, source) is not None


@pytest.mark.parametrize(
    ("changed", "source_changed", "nothing"),
    [
        ({}, {}, True),
        ({"source_version": "0"}, {}, False),
        ({"source_committed": 1}, {}, False),  # restored from a backup, and then changed up to the same version number
        ({"source_version": "unversioned"}, {"source_version": "unversioned"}, False),
        ({"output_versions": {}}, {}, False),
    ],
)
def test_there_is_nothing_new_in_the_same_commit_of_the_source(
    ten: Tables, source_of: Callable[..., Source], changed: dict[str, Any], source_changed: dict[str, Any], *, nothing: bool
) -> None:
    row = {
        "run_id": "r1", "status": "done", "scope": "s", "fingerprint": "f1", "settled": True, "source_version": "1",
        "source_committed": 7, "rejects": 0, "output_versions": recovery.read_versions(ten, WRITTEN),
    }  # fmt: skip
    last = RunRow.from_values({**row, **changed})
    provenance = replace(Provenance("r2", DAY, "/texts", "m", "f1", "1", source_committed=7), **source_changed)
    record = Record(last=last, latest=last)
    assert guards.has_nothing_to_do(record, ten, Summary("r2", DAY, scope="s"), provenance, source_of()) == nothing


@pytest.mark.parametrize(
    ("version", "found"),
    [("3", "has schema version 3, but this program writes version 5"), (None, "was not written by this program")],
)
def test_tables_of_another_schema_are_refused(sliced: Tables, tmp_path: Path, version: str | None, found: str) -> None:
    tables = copied(sliced, tmp_path)
    table_setup.check_tables(tables)
    change = f"SET TBLPROPERTIES ('{PROPERTY}' = '{version}')" if version else f"UNSET TBLPROPERTIES ('{PROPERTY}')"
    tables.spark.sql(f"ALTER TABLE {tables.sql_name('entities')} {change}")
    tables.forget()
    with pytest.raises(OutputError, match=f"out/entities exists and {found}; choose another output"):
        table_setup.check_tables(tables)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("texts", f"{Path.cwd()}/texts"),
        ("./lake//texts/", f"{Path.cwd()}/lake/texts"),
        ("/lake/texts", "/lake/texts"),
        ("file:///lake/a b", "/lake/a b"),
        ("dbfs:/Volumes/lake/texts", "/Volumes/lake/texts"),
        ("nostorage://me:hunter2@bucket/texts", "nostorage://***@bucket/texts"),
    ],
)
def test_a_source_is_named_by_its_complete_address_without_secrets(spark: SparkSession, path: str, expected: str) -> None:
    """In another directory, the same relative path is another source. So a run must record the complete path."""
    assert guards.locate_source(spark, load(None, [f"source.path={path}", "output.path=/lake/out"], {}).source) == expected


@pytest.mark.parametrize("name", ["texts", "Default.Texts", "spark_catalog.default.`texts`"])
def test_a_catalog_table_is_named_completely(spark: SparkSession, name: str) -> None:
    settings = load(None, ["source.format=table", f"source.path={name}", "output.path=/lake/out"], {})
    assert guards.locate_source(spark, settings.source) == "spark_catalog.default.texts"
