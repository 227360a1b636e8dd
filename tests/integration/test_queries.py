"""Test that each query in docs/queries.md returns the same rows in Spark, DuckDB and pandas."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from delta_reader import read_delta
from page_code import ROOT

from .conftest import Job

PAGE = (ROOT / "docs" / "queries.md").read_text(encoding="utf8")
QUERIES = re.findall(r"## ([^\n]+)\n\n```sql\n(.*?)```\n\n```python\ndef (\w+)\((\w+)\):\n(.*?)```", PAGE, re.DOTALL)
TEXTS = (
    "Angela Merkel met Barack Obama in Berlin. Paris waited for Angela Merkel.",
    "ANGELA MERKEL'S plane left Paris for London.",
    "Nothing here.",
    "Barack Obama flew to Paris. Then Barack Obama met Angela Merkel in Paris.",
    "Nelson Mandela spoke in Cape Town, and in London.",
)


@pytest.fixture(scope="module")
def filled(module_job: Job) -> Job:
    days = [date(2026, 11, 2) + timedelta(days=4 * number) for number in range(len(TEXTS))]
    table = pa.table({"id": [f"d{number}" for number in range(len(TEXTS))], "published": days, "text": TEXTS})
    module_job.texts(table).run("source.passthrough=[published]", "output.deletion_vectors=true")
    # The second run leaves deletion vectors, which every reader must support.
    changed = table.set_column(2, "text", pa.array([*TEXTS[:4], TEXTS[4].replace("London", "Paris")]))
    module_job.texts(changed).run("source.passthrough=[published]", "output.deletion_vectors=true")
    return module_job


def plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Convert the dates and numbers of any library to Python's dates and rounded floats."""

    def value(one: Any) -> Any:
        one = one.item() if hasattr(one, "item") else one
        one = one.date() if hasattr(one, "date") else one
        return round(float(one), 5) if isinstance(one, int | float) else one

    return [tuple(map(value, row)) for row in rows]


@pytest.mark.deep
@pytest.mark.parametrize(("title", "sql", "name", "table", "body"), QUERIES, ids=[query[2] for query in QUERIES])
def test_a_query_gives_the_same_rows_everywhere(filled: Job, title: str, sql: str, name: str, table: str, body: str) -> None:
    for view in ("entities", "documents"):
        filled.read(view).createOrReplaceTempView(view)
    spark = plain([tuple(row) for row in filled.spark.sql(sql).collect()])
    entities, documents = (read_delta(filled.output / view) for view in ("entities", "documents"))
    with duckdb.connect() as connection:
        connection.register("entities", entities)
        connection.register("documents", documents)
        duck = plain(connection.execute(sql).fetchall())
    scope: dict[str, Any] = {"pd": pd}
    exec(f"def {name}({table}):\n{body}", scope)  # noqa: S102  # what the page says
    frame = scope[name](entities.to_pandas() if table == "entities" else documents.to_pandas())
    pandas = plain(list(frame.itertuples(index=False, name=None)))
    assert spark, title
    assert spark == duck == pandas


@pytest.mark.deep
def test_a_change_left_a_deletion_vector(filled: Job) -> None:
    logs = (filled.output / "entities" / "_delta_log").glob("*.json")
    assert any('"deletionVector":{' in log.read_text(encoding="utf8") for log in logs)


def test_the_page_has_them_all() -> None:
    assert len(QUERIES) == PAGE.count("```sql") == 5
