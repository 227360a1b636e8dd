"""The table `rejects`: the rows of the present source that are not documents, and the documents that no worker survives."""

from __future__ import annotations

from pyspark.sql import DataFrame

from entitymill import schemas
from entitymill.tables import table_creation, table_rows
from entitymill.tables.commits import Commits
from entitymill.tables.layout import Tables
from entitymill.tables.table_rows import Stamp


class Rejects:
    """What a run changes in `rejects`."""

    def __init__(self, tables: Tables, commits: Commits, stamp: Stamp) -> None:
        """Create the table if it is missing."""
        self._tables = tables
        self._commits = commits
        self._stamp = stamp
        self._empty = table_creation.create(tables, "rejects", schemas.REJECTS) or tables.empty("rejects")

    def replace(self, refused: DataFrame, *, some: bool) -> None:
        """Make the refused rows of this run's source, or slice, these.

        Args:
            refused: doc_id, stage, code, detail.
            some: whether there are any.
        """
        condition = f"slice = '{self._stamp.slice}'" if self._stamp.slice else None
        if some or (not self._empty and self._tables.read("rejects").where(condition or "true").take(1)):
            self._commits.replace(self._rows(refused), "rejects", condition)

    def add(self, refused: DataFrame) -> None:
        """Add refused rows: doc_id, stage, code, detail."""
        self._commits.append(self._rows(refused), "rejects")

    def _rows(self, refused: DataFrame) -> DataFrame:
        made = table_rows.rejects(refused, self._stamp).select(*schemas.REJECTS.names).to(schemas.REJECTS)
        return self._tables.sized(made)
