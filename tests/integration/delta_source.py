"""A Delta table of texts that the tests change between runs and during them."""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from truth import POOL

from .conftest import Job

BASE = {f"d{i}": text for i, text in enumerate(POOL[:6])}


class Source:
    """A Delta table of texts, and what is in it."""

    def __init__(self, job: Job, **properties: str) -> None:
        self.job, self.path, self.rows = job, f"{job.directory}/source", dict(BASE)
        self.writer(self.frame(BASE)).options(**properties).save(self.path)

    def frame(self, rows: dict[str, str | None]) -> DataFrame:
        return self.job.spark.createDataFrame(list(rows.items()), "id string, text string").coalesce(1)

    def writer(self, frame: DataFrame, mode: str = "errorifexists"):  # noqa: ANN201
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

    @property
    def table(self) -> DeltaTable:
        return DeltaTable.forPath(self.job.spark, self.path)

    def options(self) -> tuple[str, ...]:
        return ("source.format=delta", f"source.path={self.path}")


FEED = {"delta.enableChangeDataFeed": "true"}
