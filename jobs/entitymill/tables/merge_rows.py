"""Change tables with SQL statements, each of which makes one Delta commit."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from entitymill.spark.private_session import NO_CONFS, run_statement
from entitymill.spark.sql_text import quote_literal, quote_part
from entitymill.tables.output_tables import Tables


def run_with_view(
    tables: Tables, frame: DataFrame, build_statement: Callable[[str], str], *, confs: Mapping[str, str] = NO_CONFS
) -> None:
    """Run an SQL statement on a temporary view of a DataFrame; `build_statement` returns the statement for the view's name.

    `confs` are Spark properties for the statement, as in `run_statement`.
    """
    view = f"entitymill_{uuid.uuid4().hex}"
    frame.createOrReplaceTempView(view)
    try:
        run_statement(tables.spark, build_statement(view), confs=confs)
    finally:
        tables.spark.catalog.dropTempView(view)


def replace_documents(
    tables: Tables,
    name: str,
    old_ids: DataFrame,
    rows: DataFrame,
    between: tuple[str, str] | None = None,
    *,
    confs: Mapping[str, str] = NO_CONFS,
) -> None:
    """Delete all rows of some documents from a table and insert new rows, in one commit.

    Args:
        old_ids: DataFrame with the distinct doc_ids whose rows are deleted. In `rejects`, a null id deletes rows without an
            id: only rows of the slice that the column `slice` of `old_ids` names, or all if it is null or missing.
        rows: rows to insert.
        between: smallest and greatest doc_id in `old_ids`, which let Delta skip files.
        confs: as in `run_statement`.
    """
    old = old_ids.withColumn("_put", F.lit(False))
    source = rows.withColumn("_put", F.lit(True)).unionByName(old, allowMissingColumns=True)
    inside = f"AND t.doc_id BETWEEN {quote_literal(between[0])} AND {quote_literal(between[1])}" if between else ""
    names = ", ".join(map(quote_part, rows.columns))
    values = ", ".join(f"s.{quote_part(column)}" for column in rows.columns)
    any_slice = "(t.doc_id IS NOT NULL OR s.slice IS NULL OR t.slice = s.slice)"
    same = f"t.doc_id <=> s.doc_id AND {any_slice}" if name == "rejects" else "t.doc_id = s.doc_id"
    changes = f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND s._put THEN INSERT ({names}) VALUES ({values})"  # noqa: S608
    run_with_view(
        tables,
        source,
        lambda view: (
            f"MERGE INTO {tables.sql_name(name)} AS t USING {view} AS s ON {same} AND NOT s._put {inside} {changes}"
        ),
        confs=confs,
    )


def upsert(
    tables: Tables,
    name: str,
    rows: DataFrame,
    update: Sequence[str],
    *,
    insert: bool = True,
    confs: Mapping[str, str] = NO_CONFS,
) -> None:
    """Update the rows of a table by doc_id, and insert rows with new ids, in one commit.

    Args:
        rows: DataFrame with distinct doc_ids, and other columns of the table.
        update: names of the columns to update in existing rows.
        insert: whether to insert rows with new ids; if False, they are ignored.
        confs: as in `run_statement`.
    """
    changes = ", ".join(f"t.{quote_part(column)} = s.{quote_part(column)}" for column in update)
    actions = f"WHEN MATCHED THEN UPDATE SET {changes}"
    if insert:
        names = ", ".join(map(quote_part, rows.columns))
        values = ", ".join(f"s.{quote_part(column)}" for column in rows.columns)
        actions += f" WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"  # noqa: S608
    run_with_view(
        tables,
        rows,
        lambda view: f"MERGE INTO {tables.sql_name(name)} AS t USING {view} AS s ON t.doc_id = s.doc_id {actions}",
        confs=confs,
    )
