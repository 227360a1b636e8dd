"""Build the DAG of a table: it extracts and checks entities, and updates the table's asset, which triggers other DAGs.

This module imports nothing heavy, because Airflow loads it every few seconds.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, CronDataIntervalTimetable, Param
from pendulum import DateTime, instance

from entitymill_dags.arguments import build_job_arguments, build_job_parameters
from entitymill_dags.check import CheckTables
from entitymill_dags.tables import Table, Tables

SECTIONS = "source|segmentation|model|recognition|incremental|limits"
OWN = r"source\.(?:where|path|format)|limits\.max_reject_ratio"
SETTING = rf"^(?!(?:{OWN})=)(?:{SECTIONS})(?:\.[a-z_]+)+=.*$"
"""Pattern of the settings that a person may enter for a manual run: settings of the SECTIONS, except the settings in OWN.

OWN has the settings that select rows of the source, which a manual run must not change. It also has limits.max_reject_ratio,
for which there is a separate param.
"""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

Rendered = Callable[..., Any]
"""A function that Airflow calls to get the value of an operator's template field."""


def make_dags(tables: Tables) -> dict[str, DAG]:
    """Return a dict from DAG id to DAG, with one DAG for each table."""
    return {table.dag_id: make_dag(table, tables.home) for table in tables.tables}


def make_dag(table: Table, home: Path) -> DAG:
    """Return a table's DAG, with the tasks `extract` and `check`; `home` is the repository's directory on the workers."""
    cron = CronDataIntervalTimetable(table.schedule, timezone=table.timezone) if table.schedule else None
    schedule = [Asset(uri=uri) for uri in table.after] or cron
    dag = DAG(
        dag_id=table.dag_id,
        description=f"Entities of {table.name}",
        doc_md=_build_description(table),
        schedule=schedule,
        start_date=_add_time_zone(table.start_date, table.timezone),
        end_date=_add_time_zone(table.end_date, table.timezone) if table.end_date else None,
        catchup=table.catchup,
        max_active_runs=table.max_active_runs,
        on_failure_callback=_import_on_call(table.alert) if table.alert else None,
        params=make_params(table),
        tags=["entitymill", *table.tags],
        default_args={
            "owner": table.owner,
            # Retries are always safe: the output ends up as one clean run would have written it.
            "retries": table.retries,
            "retry_delay": timedelta(minutes=table.retry_minutes),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
        },
    )
    with dag:
        check = CheckTables(task_id="check", table=table, home=str(home), outlets=[make_asset(table)])
        extract = _RUNNERS[table.runner](table, home)
        extract >> check
    return dag


def _import_on_call(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that imports and calls the function `name`.

    The import is delayed until the call, so that a wrong `alert` in tables.yaml does not break the DAG itself.
    """

    def import_and_call(context: Mapping[str, Any]) -> Any:
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(module), function)(context)

    return import_and_call


def make_asset(table: Table) -> Asset:
    """Return the Airflow asset of the table's entities, which is updated by each run that passes the check."""
    return Asset(name=table.asset, uri=f"x-entitymill://entities/{table.name}", group="entitymill")


def make_params(table: Table) -> dict[str, Param]:
    """Return the params of a manual run, with the schemas by which Airflow validates them.

    Every table has the param `max_reject_ratio`. A table with a runner other than databricks_run_now also has the param
    `settings` and, if the table has no slices, the param `full`.
    """
    chosen = {
        "max_reject_ratio": Param(
            table.max_reject_ratio, type="number", minimum=0, maximum=1,
            description="Share of rejected rows above which nothing is published.",
        ),
        "settings": Param(
            [], type="array", items={"type": "string", "pattern": SETTING},
            description="More settings for this run, one key.path=value per line, such as recognition.precision=bf16.",
        ),
    }  # fmt: skip
    if table.runner == "databricks_run_now":
        del chosen["settings"]  # this runner takes only the job's own parameters
    if table.slice is None and table.runner != "databricks_run_now":
        chosen["full"] = Param(False, type="boolean", description="Recompute every document, even if nothing changed.")
    return chosen


def _render_at_run_time(make: Callable[[Mapping[str, Any]], Any]) -> Rendered:
    """Return a placeholder for a template field; when the task runs, Airflow replaces it by the value of `make(context)`."""

    def render(*, context: Mapping[str, Any], jinja_env: Any) -> Any:  # noqa: ARG001  # Airflow passes both by name
        return make(context)

    return render


def _build_common_arguments(table: Table) -> dict[str, Any]:
    """Return the arguments of the operator of the task `extract` that are the same for every runner."""
    return {
        # Retries, cleared tasks and backfills must submit a new job instead of reattaching to an earlier job. If the earlier
        # job is still running, the new job itself waits until that job has ended, on every kind of cluster.
        "durable": False,
        "task_id": "extract",
        "pool": table.pool,
        "execution_timeout": timedelta(hours=table.timeout_hours),
        # Backfills and scheduled runs write the same output, so they run one after the other.
        "max_active_tis_per_dag": 1,
    }


def _make_spark_submit_task(table: Table, home: Path) -> BaseOperator:
    """Return the task `extract` that runs the job with spark-submit; `home` is the directory to which paths are relative."""
    from entitymill_dags.spark import SubmitJob  # noqa: PLC0415  # loads the provider

    submit = table.spark_submit
    config = table.config if submit.deploy_mode == "cluster" else str(home / (table.config or ""))
    return SubmitJob(
        **_build_common_arguments(table),
        conn_id=submit.connection,
        spark_binary=str(home / submit.binary),
        application=_resolve_path(home, submit.application),
        application_args=_render_at_run_time(lambda context: build_job_arguments(table, config, context)),  # type: ignore[arg-type]
        name=f"entitymill {table.name}",
        deploy_mode=submit.deploy_mode,
        properties_file=str(home / submit.properties_file),
        jars=_render_at_run_time(lambda _: list_jars(home, submit.jars)) if submit.jars else None,  # type: ignore[arg-type]
        files=",".join(_resolve_path(home, file) for file in submit.files) or None,
        archives=_resolve_path(home, submit.archives) if submit.archives else None,
        conf=dict(submit.conf),
    )


def _resolve_path(home: Path, path: str) -> str:
    """Return the absolute form of a path that is relative to `home`; return an address such as s3://… unchanged."""
    return path if _ADDRESS.match(path) else str(home / path)


def list_jars(home: Path, paths: Sequence[str]) -> str:
    """Return the value of spark-submit's --jars: the jars in each directory of `paths`, and each address of a jar.

    Raises:
        FileNotFoundError: a directory contains no jar.
    """
    found = []
    for path in paths:
        jars = [path] if _ADDRESS.match(path) else sorted(str(jar) for jar in (home / path).glob("*.jar"))
        if not jars:
            raise FileNotFoundError(
                f"spark_submit.jars: {home / path} contains no jar. Run `make jars` in {home}, or set "
                "`spark_submit.jars: []` if the cluster has the jars."
            )
        found += jars
    return ",".join(found)


def _make_run_now_task(table: Table, home: Path) -> BaseOperator:  # noqa: ARG001  # all runners have the same signature
    """Return the task `extract` that starts a run of the existing Databricks job `databricks.job_name`."""
    from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator  # noqa: PLC0415

    return DatabricksRunNowOperator(
        **_build_common_arguments(table),
        databricks_conn_id=table.databricks.connection,
        job_name=table.databricks.job_name,
        deferrable=table.deferrable,
        job_parameters=_render_at_run_time(lambda context: build_job_parameters(table, context)),  # type: ignore[arg-type]
    )


def _make_submit_run_task(table: Table, home: Path) -> BaseOperator:  # noqa: ARG001  # all runners have the same signature
    """Return the task `extract` that submits a run to Databricks on a new cluster, without a job."""
    from entitymill_dags.submission import SubmitRun  # noqa: PLC0415  # loads the provider

    def build_tasks(context: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the only task of the submitted run, as the Databricks API expects it."""
        wheel = {"package_name": "entitymill", "entry_point": "entitymill"}
        wheel["parameters"] = build_job_arguments(table, table.config, context)  # type: ignore[assignment]
        return [
            {
                "task_key": "extract",
                "new_cluster": table.databricks.cluster,
                "libraries": table.databricks.libraries,
                "python_wheel_task": wheel,
            }
        ]

    return SubmitRun(
        **_build_common_arguments(table),
        databricks_conn_id=table.databricks.connection,
        run_name=f"entitymill {table.name}",
        deferrable=table.deferrable,
        tasks=_render_at_run_time(build_tasks),  # type: ignore[arg-type]
    )


_RUNNERS: dict[str, Callable[[Table, Path], BaseOperator]] = {
    "spark_submit": _make_spark_submit_task,
    "databricks_run_now": _make_run_now_task,
    "databricks_submit": _make_submit_run_task,
}


def _add_time_zone(moment: datetime, zone: str) -> DateTime:
    """Return a time unchanged if it has a time zone, otherwise with the time zone `zone`."""
    return instance(moment, tz=zone)


def _build_description(table: Table) -> str:
    """Return the description of a DAG that Airflow shows, in Markdown."""
    slices = (
        f"slices of `{table.slice.column}`, one per data interval" if table.slice else "the complete source, incrementally"
    )
    return f"Entities of **{table.name}**: {slices}. Retries, reruns and backfills are safe: they replace rows."
