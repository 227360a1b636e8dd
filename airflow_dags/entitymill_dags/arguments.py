"""A table, a data interval and a run's params -> the job's arguments. Pure functions of the task's context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from entitymill_dags.tables import Slice, Table


def where(table: Table, context: Mapping[str, Any]) -> str | None:
    """The condition that makes the data interval's slice; none for a table without slices.

    The same interval always makes the same words: by them the job knows its slice again.

    Raises:
        AirflowFailException: the run has no data interval.
    """
    if table.slice is None:
        return None
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start == end:
        raise AirflowFailException(
            f"This run has no data interval, so it is about no slice of {table.name}: trigger it with a logical date, or "
            "create a backfill."
        )
    column = "`" + table.slice.column.replace("`", "``") + "`"
    first, last = (_literal(table.slice, moment, table.timezone) for moment in (start, end))
    return f"{column} >= {first} AND {column} < {last}"


def _literal(part: Slice, moment: Any, zone: str) -> str:
    # A day is one of the table's time zone: midnight in Berlin is the day before in UTC.
    if part.type == "date":
        return f"DATE '{moment.in_timezone(zone).to_date_string()}'"
    return f"TIMESTAMP '{moment.in_timezone('UTC').strftime('%Y-%m-%dT%H:%M:%S')}Z'"


def overrides(table: Table, context: Mapping[str, Any]) -> list[str]:
    """Every `key.path=value` of a run; what a person entered comes before what the DAG is about, which wins."""
    params = context["params"]
    condition = where(table, context)
    slicing = [f"source.where={condition}", "output.replace_slice=true"] if condition is not None else []
    ratio = f"limits.max_reject_ratio={params['max_reject_ratio']}"
    return [*table.settings, *params["settings"], table.output.setting(), ratio, *slicing]


def job_arguments(table: Table, config: str | None, context: Mapping[str, Any]) -> list[str]:
    """The job's command line."""
    assert config is not None, "checked with the entry"  # noqa: S101
    sets = [item for override in overrides(table, context) for item in ("--set", override)]
    return ["--config", config, *sets, *(["--full"] if context["params"].get("full") else [])]


def job_parameters(table: Table, context: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of the bundle's job (`resources/extract_entities.yml`)."""
    params = context["params"]
    condition = where(table, context)
    return {
        **table.databricks.parameters,
        "output_schema": str(table.output.schema_),
        "where": condition if condition is not None else "null",
        "replace_slice": "false" if condition is None else "true",
        "max_reject_ratio": str(params["max_reject_ratio"]),
    }
