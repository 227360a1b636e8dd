"""A table -> its DAG: extract, then check; then the table's asset tells other DAGs.

Imports nothing heavy: Airflow reads this every few seconds.
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

from entitymill_dags.arguments import job_arguments, job_parameters
from entitymill_dags.check import CheckTables
from entitymill_dags.tables import Table, Tables

SECTIONS = "source|segmentation|model|recognition|incremental|limits"
# The DAG itself says what is read, where it goes and which slice it is.
OWN = r"source\.(?:where|path|format)|limits\.max_reject_ratio"
SETTING = rf"^(?!(?:{OWN})=)(?:{SECTIONS})(?:\.[a-z_]+)+=.*$"
"""What a person may set for one run, by hand."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

Rendered = Callable[..., Any]


def make_dags(tables: Tables) -> dict[str, DAG]:
    """DAG ids -> DAGs."""
    return {table.dag_id: make_dag(table, tables.home) for table in tables.tables}


def make_dag(table: Table, home: Path) -> DAG:
    """The DAG of one table.

    Args:
        table: of `tables.yaml`.
        home: where the repository lies on the workers.
    """
    schedule = CronDataIntervalTimetable(table.schedule, timezone=table.timezone) if table.schedule else None
    dag = DAG(
        dag_id=table.dag_id,
        description=f"Entities of {table.name}",
        doc_md=_about(table),
        schedule=schedule,
        start_date=_aware(table.start_date, table.timezone),
        end_date=_aware(table.end_date, table.timezone) if table.end_date else None,
        catchup=table.catchup,
        max_active_runs=table.max_active_runs,
        on_failure_callback=_named(table.alert) if table.alert else None,
        params=params(table),
        tags=["entitymill", *table.tags],
        default_args={
            "owner": table.owner,
            # Safe as often as one likes: the job makes its output what one clean run would have written.
            "retries": table.retries,
            "retry_delay": timedelta(minutes=table.retry_minutes),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(hours=1),
        },
    )
    with dag:
        check = CheckTables(task_id="check", table=table, home=str(home), outlets=[asset(table)])
        extract = _RUNNERS[table.runner](table, home)
        extract >> check
    return dag


def _named(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A function by its module and name; looked for where a run fails, so that a DAG is never lost for its alert's sake."""

    def call(context: Mapping[str, Any]) -> Any:
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(module), function)(context)

    return call


def asset(table: Table) -> Asset:
    """Stands for the table's entities, in every version that passed the checks."""
    return Asset(name=table.asset, uri=f"x-entitymill://entities/{table.name}", group="entitymill")


def params(table: Table) -> dict[str, Param]:
    """What a person may set when starting a run by hand; Airflow holds it against these schemas."""
    chosen = {
        "max_reject_ratio": Param(
            table.max_reject_ratio, type="number", minimum=0, maximum=1,
            description="Share of refused rows above which nothing is published.",
        ),
        "settings": Param(
            [], type="array", items={"type": "string", "pattern": SETTING},
            description="More settings for this run, one key.path=value a line, such as recognition.precision=bf16.",
        ),
    }  # fmt: skip
    if table.runner == "databricks_run_now":
        del chosen["settings"]  # the job's own parameters are what it takes
    if table.slice is None and table.runner != "databricks_run_now":
        chosen["full"] = Param(False, type="boolean", description="Recompute every document, unit by unit.")
    return chosen


def _at_run_time(make: Callable[[Mapping[str, Any]], Any]) -> Rendered:
    """A template field that is computed where and when the task runs."""

    def rendered(*, context: Mapping[str, Any], jinja_env: Any) -> Any:  # noqa: ARG001  # Airflow passes both by name
        return make(context)

    return rendered


def _common(table: Table) -> dict[str, Any]:
    return {
        # A retry, a cleared task and a backfill submit anew: they would else find the run before, and take it for theirs.
        # The job's lease keeps it from what may still run, on every kind of cluster.
        "durable": False,
        "task_id": "extract",
        "execution_timeout": timedelta(hours=table.timeout_hours),
        # Backfills and scheduled runs write one output: one after the other.
        "max_active_tis_per_dag": 1,
    }


def _spark_submit(table: Table, home: Path) -> BaseOperator:
    from entitymill_dags.spark import SubmitJob  # noqa: PLC0415  # loads the provider

    how = table.spark_submit
    elsewhere = how.deploy_mode == "cluster"
    config = table.config if elsewhere else str(home / (table.config or ""))
    return SubmitJob(
        **_common(table),
        conn_id=how.connection,
        spark_binary=str(home / how.binary),
        application=_from(home, how.application),
        application_args=_at_run_time(lambda context: job_arguments(table, config, context)),  # type: ignore[arg-type]
        name=f"entitymill {table.name}",
        deploy_mode=how.deploy_mode,
        properties_file=str(home / how.properties_file),
        jars=_at_run_time(lambda _: jars(home, how.jars)) if how.jars else None,  # type: ignore[arg-type]
        files=",".join(_from(home, file) for file in how.files) or None,
        archives=_from(home, how.archives) if how.archives else None,
        conf=dict(how.conf),
    )


def _from(home: Path, place: str) -> str:
    """A path from the home; an address is one by itself."""
    return place if _ADDRESS.match(place) else str(home / place)


def jars(home: Path, places: Sequence[str]) -> str:
    """As --jars takes them: those of directories, and addresses as they are.

    Raises:
        FileNotFoundError: one of the directories has none.
    """
    found = []
    for place in places:
        here = [place] if _ADDRESS.match(place) else sorted(str(jar) for jar in (home / place).glob("*.jar"))
        if not here:
            raise FileNotFoundError(f"spark_submit.jars: no jar in {home / place}: run `make jars` there, or set [].")
        found += here
    return ",".join(found)


def _databricks_run_now(table: Table, home: Path) -> BaseOperator:  # noqa: ARG001  # all runners are called alike
    from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator  # noqa: PLC0415

    return DatabricksRunNowOperator(
        **_common(table),
        databricks_conn_id=table.databricks.connection,
        job_name=table.databricks.job_name,
        job_parameters=_at_run_time(lambda context: job_parameters(table, context)),  # type: ignore[arg-type]
    )


def _databricks_submit(table: Table, home: Path) -> BaseOperator:  # noqa: ARG001  # all runners are called alike
    from entitymill_dags.submission import SubmitRun  # noqa: PLC0415  # loads the provider

    def tasks(context: Mapping[str, Any]) -> list[dict[str, Any]]:
        wheel = {"package_name": "entitymill", "entry_point": "entitymill"}
        wheel["parameters"] = job_arguments(table, table.config, context)  # type: ignore[assignment]
        return [
            {
                "task_key": "extract",
                "new_cluster": table.databricks.cluster,
                "libraries": table.databricks.libraries,
                "python_wheel_task": wheel,
            }
        ]

    return SubmitRun(
        **_common(table),
        databricks_conn_id=table.databricks.connection,
        run_name=f"entitymill {table.name}",
        tasks=_at_run_time(tasks),  # type: ignore[arg-type]
    )


_RUNNERS: dict[str, Callable[[Table, Path], BaseOperator]] = {
    "spark_submit": _spark_submit,
    "databricks_run_now": _databricks_run_now,
    "databricks_submit": _databricks_submit,
}


def _aware(moment: datetime, zone: str) -> DateTime:
    """A date without a time zone is one of the table's."""
    return instance(moment, tz=zone)


def _about(table: Table) -> str:
    slices = f"slices of `{table.slice.column}`, one per data interval" if table.slice else "the whole source, incrementally"
    return f"Entities of **{table.name}**: {slices}. Retries, reruns and backfills are safe: they replace, they never add."
