"""A Delta table of texts that the tests change between runs and during them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, DataFrameWriter
from pyspark.sql import functions as F

from expected_tables import TEXT_POOL

from .conftest import Job

BASE = {f"d{i}": text for i, text in enumerate(TEXT_POOL[:6])}
FEED = {"delta.enableChangeDataFeed": "true"}


class Source:
    """Writes a Delta table of texts; `rows` maps each doc_id that is now in the table to its text."""

    def __init__(self, job: Job, **properties: str) -> None:
        self.job, self.path, self.rows = job, f"{job.directory}/source", dict(BASE)
        self.column = "text"
        self.writer(self.frame(BASE)).options(**properties).save(self.path)

    def frame(self, rows: Mapping[str, str | None]) -> DataFrame:
        return self.job.spark.createDataFrame(list(rows.items()), f"id string, {self.column} string").coalesce(1)

    def writer(self, frame: DataFrame, mode: str = "errorifexists") -> DataFrameWriter:
        return frame.write.format("delta").mode(mode)

    def append(self, rows: dict[str, str]) -> None:
        self.writer(self.frame(rows), "append").save(self.path)
        self.rows |= rows

    def overwrite(self, rows: dict[str, str]) -> None:
        self.writer(self.frame(rows), "overwrite").save(self.path)
        self.rows = dict(rows)

    def change(self, rows: dict[str, str]) -> None:
        merge = self.table.alias("t").merge(self.frame(rows).alias("s"), "t.id = s.id")
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        self.rows |= rows

    def delete(self, *ids: str) -> None:
        self.table.delete(F.col("id").isin(*ids))
        for key in ids:
            del self.rows[key]

    def make_anew(self, rows: dict[str, str]) -> None:
        """Replace the table by a new Delta table with the same path and other rows."""
        self.writer(self.frame(rows)).save(f"{self.path}-2")
        shutil.rmtree(self.path)
        Path(f"{self.path}-2").rename(self.path)
        self.rows = dict(rows)

    def alter(self, how: str) -> None:
        self.job.spark.sql(f"ALTER TABLE delta.`{self.path}` {how}")

    def rename(self, column: str) -> None:
        """Rename the text column."""
        self.alter(f"RENAME COLUMN {self.column} TO {column}")
        self.column = column

    @property
    def table(self) -> DeltaTable:
        return DeltaTable.forPath(self.job.spark, self.path)

    @property
    def commit(self) -> Path:
        """Return the newest commit file of the table; its stem is the table version."""
        return max(Path(self.path, "_delta_log").glob("*.json"))

    def options(self) -> tuple[str, ...]:
        return ("source.format=delta", f"source.path={self.path}", f"source.text_column={self.column}")
