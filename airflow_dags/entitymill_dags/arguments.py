"""Build the job's arguments from a table, a data interval and a run's params. The functions have no side effects.

A slice is the part of a table's source that belongs to one data interval. A run of a slice replaces only the rows of that
slice in the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from entitymill_dags.tables import Slice, Table, find_secret_settings


def build_condition(table: Table, context: Mapping[str, Any]) -> str | None:
    """Return the SQL condition that selects the data interval's slice; None for a table without slices.

    The same interval always gives the same text, because the job identifies a slice by the text of its condition.

    Raises:
        AirflowFailException: the table has slices, but the run has no data interval, or an empty one.
    """
    if table.slice is None:
        return None
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start == end:
        raise AirflowFailException(
            f"This run has no data interval, so it selects no slice of {table.name}: trigger it with a logical date, or "
            "create a backfill."
        )
    column = "`" + table.slice.column.replace("`", "``") + "`"
    first, last = (_format_literal(table.slice, moment, table.timezone) for moment in (start, end))
    return f"{column} >= {first} AND {column} < {last}"


def _format_literal(slice_: Slice, moment: Any, zone: str) -> str:
    """Return a time as a SQL literal: its day in the time zone `zone` if the slice's type is `date`, otherwise in UTC."""
    # Midnight in Berlin is still the day before in UTC.
    if slice_.type == "date":
        return f"DATE '{moment.in_timezone(zone).to_date_string()}'"
    return f"TIMESTAMP '{moment.in_timezone('UTC').strftime('%Y-%m-%dT%H:%M:%S')}Z'"


def build_overrides(table: Table, context: Mapping[str, Any]) -> list[str]:
    """Return all settings that override a run's settings file, each as `key.path=value`; of two values, the later applies.

    First come the settings of the table, then the settings that a person entered for this run. The settings that the DAG
    itself sets come last: the output, max_reject_ratio, and the slice.

    Raises:
        AirflowFailException: the run needs a data interval (see `build_condition`), or a person entered a secret, which the
            job's command line would show.
    """
    params = context["params"]
    secret = find_secret_settings(params["settings"])
    if secret:
        raise AirflowFailException(
            f"{secret[0]} holds a secret, which the command line would show: set it in the worker's environment, or use a "
            "credentials provider."
        )
    condition = build_condition(table, context)
    slicing = [f"source.where={condition}", "output.replace_slice=true"] if condition is not None else []
    ratio = f"limits.max_reject_ratio={params['max_reject_ratio']}"
    return [*table.settings, *params["settings"], table.output.setting(), ratio, *slicing]


def build_job_arguments(table: Table, config: str | None, context: Mapping[str, Any]) -> list[str]:
    """Return the command-line arguments of the job: the settings file `config`, all overrides, and --full if requested."""
    assert config is not None, "the table's validation requires it"  # noqa: S101
    sets = [item for override in build_overrides(table, context) for item in ("--set", override)]
    return ["--config", config, *sets, *(["--full"] if context["params"].get("full") else [])]


def build_job_parameters(table: Table, context: Mapping[str, Any]) -> dict[str, str]:
    """Return the job parameters of a run of the job that `resources/extract_entities.yml` defines in Databricks.

    For a table without slices, the parameter `where` is "null".
    """
    params = context["params"]
    condition = build_condition(table, context)
    return {
        **table.databricks.parameters,
        "output_schema": str(table.output.schema_),
        "where": condition if condition is not None else "null",
        "replace_slice": "false" if condition is None else "true",
        "max_reject_ratio": str(params["max_reject_ratio"]),
    }
