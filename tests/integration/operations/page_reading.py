"""Read the content of a report page with Spark and, if possible, without Spark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from entitymill.settings import Settings
from entitymill.tables import Tables
from entitymill_reports import page_queries
from entitymill_reports.page_data import PageContent
from entitymill_reports.table_reader import open_local_reader, open_spark_reader
from integration.conftest import Job


def read_both_ways(job: Job, chosen: Settings, *, needs_spark: bool = False) -> PageContent:
    """Read a report page with and without Spark, check that both contents are equal, and return the content.

    Floats may differ slightly, because they are summed in different orders. With `needs_spark`, check instead that only
    Spark can read the page.
    """
    with open_spark_reader(job.spark, chosen, Tables(job.spark, chosen.output)) as reader:
        found = page_queries.read_page_content(reader, chosen)
    local = open_local_reader(chosen)
    assert (local is None) == needs_spark
    if local is not None:
        other = page_queries.read_page_content(local, chosen)
        with_spark, without = (dataclasses.asdict(content) for content in (found, other))
        pairs = {name: (rounded(with_spark[name]), rounded(without[name])) for name in with_spark}
        # Spark uses the modification time of a commit file as the commit time, deltalake the time written in the file.
        units = [{unit["number"]: unit["seconds"] for unit in content["units"]} for content in (with_spark, without)]
        assert units[0] == pytest.approx(units[1], abs=1)
        documents = [[unit["documents"] for unit in content["units"]] for content in (with_spark, without)]
        pairs["units"] = (documents[0], documents[1])
        different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        assert not different, different
    return found


def rounded(value: Any) -> Any:
    """Return a value in which all floats, also nested ones, are rounded to 6 places."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
