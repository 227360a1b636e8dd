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
    """Run an SQL statement that reads the rows of a DataFrame through a temporary view.

    `build_statement` gets the view's name and returns the statement. `confs` are Spark properties that apply only to this
    statement, such as a transaction number.
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
    """Delete all rows of some documents from the table `name` and insert new rows, in one commit.

    Args:
        old_ids: DataFrame with the distinct doc_ids whose rows are deleted. For the table `rejects`, it may also have the
            column slice (digest of source.where), which matters only if doc_id is null. A null doc_id with a null slice
            stands for all rows without a doc_id. A null doc_id with any other slice stands for those in this slice.
        rows: rows to insert.
        between: smallest and greatest doc_id in `old_ids`, so that Delta can skip files; None if they are not known.
        confs: Spark properties that apply only to this statement, such as a transaction number.
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
    """Update rows of the table `name` by doc_id, and insert the rows whose doc_id the table lacks, in one commit.

    Args:
        rows: DataFrame with distinct doc_ids, and with the columns to update or insert.
        update: names of the columns that an existing row of the table gets from the row of `rows` with the same doc_id.
        insert: whether to insert rows whose doc_id is not in the table; if False, they are ignored.
        confs: Spark properties that apply only to this statement, such as a transaction number.
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
