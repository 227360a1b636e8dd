"""Rows of a stream, written down so that one run can look at them several times."""

from __future__ import annotations

from pyspark.sql import DataFrame

from entitymill import shipping
from entitymill.tables.layout import Tables

_NAME = "arrived"


class Arrivals:
    """The table of an output that holds what has just arrived, while a run looks at it."""

    def __init__(self, tables: Tables) -> None:
        """Nothing is read yet."""
        self._tables = tables

    def keep(self, stream: DataFrame) -> DataFrame:
        """Write a stream's rows down until no more are there, and return them."""
        self.drop()
        # How far the stream is matters to this run alone.
        checkpoint = shipping.scratch("entitymill-stream-").as_uri()
        writer = stream.writeStream.format("delta").outputMode("append").trigger(availableNow=True)
        writer = writer.option("checkpointLocation", checkpoint)
        in_directory = self._tables.settings.path is not None
        query = writer.start(self._tables.address(_NAME)) if in_directory else writer.toTable(self._tables.reference(_NAME))
        query.awaitTermination()
        return self._tables.read(_NAME)

    def drop(self) -> None:
        """Remove the table."""
        self._tables.drop(_NAME)
