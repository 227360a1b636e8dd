"""Test that each library with which analysts read the tables finds the same rows as Spark, in small and large tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder

from entitymill.tables import table_setup
from integration.conftest import Job

TEXTS = [
    ("d0", "Angela Merkel flew to Paris."),
    ("d1", "Barack Obama met Nelson Mandela in London."),
    ("d2", "Nothing here."),
]
CHANGED = [*TEXTS[:1], ("d1", "Barack Obama met Nelson Mandela in Berlin."), TEXTS[2]]
Rows = list[tuple[str, str]]


def plain(table: pa.Table) -> Rows:
    return sorted(zip(table["doc_id"].to_pylist(), table["entity"].to_pylist(), strict=True))


def by_query_builder(path: Path) -> Rows:
    return plain(pa.table(QueryBuilder().register("t", DeltaTable(path)).execute("SELECT * FROM t").read_all()))


def by_pandas(path: Path) -> Rows:
    frame = DeltaTable(path).to_pandas()
    return sorted(zip(frame["doc_id"], frame["entity"], strict=True))


def by_arrow(path: Path) -> Rows:
    return plain(DeltaTable(path).to_pyarrow_table())


def by_duckdb(path: Path) -> Rows:
    entities = DeltaTable(path).to_pyarrow_dataset()  # noqa: F841  # DuckDB finds it by its name
    return sorted(duckdb.execute("SELECT doc_id, entity FROM entities").fetchall())


def by_polars(path: Path) -> Rows:
    return sorted(pl.read_delta(str(path)).select("doc_id", "entity").rows())


def by_polars_lazily(path: Path) -> Rows:
    return sorted(pl.scan_delta(str(path)).select("doc_id", "entity").collect().rows())


EVERY: list[Callable[[Path], Rows]] = [by_query_builder, by_pandas, by_arrow, by_duckdb, by_polars, by_polars_lazily]
WITH_VECTORS = (by_query_builder, by_polars, by_polars_lazily)


@pytest.fixture(scope="module", params=["fresh", "changed and small", "changed and large"])
def filled(request: pytest.FixtureRequest, module_job: Job) -> tuple[Job, bool]:
    """Return a job with an output, and whether its tables have deletion vectors."""
    job = Job(module_job.spark, module_job.directory / request.param.replace(" ", "-"))
    job.directory.mkdir()
    job.texts(TEXTS).run()
    large = request.param == "changed and large"
    with pytest.MonkeyPatch.context() as patched:
        if large:
            patched.setattr(table_setup, "LARGE_BYTES", 1)
        if request.param != "fresh":
            job.texts(CHANGED).run()
    return job, large


@pytest.mark.parametrize("read", EVERY, ids=[read.__name__ for read in EVERY])
def test_a_reader_finds_every_row_or_refuses_the_table(filled: tuple[Job, bool], read: Callable[[Path], Rows]) -> None:
    job, large = filled
    path = job.output / "entities"
    expected = sorted((row.doc_id, row.entity) for row in job.read("entities").collect())
    assert len(expected) == 5
    if large and read not in WITH_VECTORS:
        with pytest.raises(Exception, match=r"(?i)deletion ?vectors"):
            read(path)
    else:
        assert read(path) == expected


COUNTS: dict[str, Callable[[Path], int]] = {
    "pandas": lambda path: len(DeltaTable(path).to_pandas()),
    "arrow": lambda path: DeltaTable(path).to_pyarrow_table().num_rows,
    "polars": lambda path: pl.read_delta(str(path)).height,
    "polars_lazily": lambda path: pl.scan_delta(str(path)).collect().height,
}


@pytest.mark.parametrize("name", ["documents", "rejects", "runs"])
def test_the_other_tables_have_as_many_rows_for_every_reader(filled: tuple[Job, bool], name: str) -> None:
    job, large = filled
    expected = job.read(name).count()
    assert expected > 0 or name == "rejects"
    for reader, count in COUNTS.items():
        if large and name == "documents" and not reader.startswith("polars"):
            with pytest.raises(Exception, match=r"(?i)deletion ?vectors"):
                count(job.output / name)
        else:
            assert count(job.output / name) == expected, reader
