"""After a run: do its tables agree with each other, and was little enough refused?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException

from entitymill_dags.arguments import where
from entitymill_dags.tables import Output, Table

_OF_RUN = (
    "run_id", "status", "mode", "model", "started_at", "ended_at", "documents AS processed", "removed", "settings",
    "sentences_per_second",
)  # fmt: skip


class ReportLink(BaseOperatorLink):
    """To the report that the check left, in Airflow's own pages."""

    name = "Run report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002  # Airflow's signature
        """The page of the task's XComs."""
        return f"/dags/{ti_key.dag_id}/runs/{ti_key.run_id}/tasks/{ti_key.task_id}/xcom"


class CheckTables(BaseOperator):
    """Reads `runs`, `documents`, `entities` and `rejects` without Spark; pushes a report, fails where it is a bad one."""

    operator_extra_links = (ReportLink(),)

    def __init__(self, *, table: Table, home: str, **options: Any) -> None:
        """Args are kept.

        Args:
            table: whose run it was.
            home: what relative paths count from.
            options: of any operator.
        """
        super().__init__(**options)
        self.table = table
        self.home = home

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Check; returns the report, and gives it to the asset's event.

        Raises:
            AirflowFailException: the tables contradict each other, or too much was refused; trying again would not help.
        """
        condition = where(self.table, context)
        output = self.table.output
        if output.path is not None and "://" not in output.path:
            output = Output(path=str(Path(self.home) / output.path))
        report = read_report(output, condition)
        faults = judge(report, condition, context["params"]["max_reject_ratio"])
        self.log.info("%s", as_text(report))
        context["ti"].xcom_push(key="report", value=as_text(report))
        if faults:
            raise AirflowFailException(" ".join(faults))
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {key: report[key] for key in ("run_id", "documents", "entities")}
        return report


def slice_digest(condition: str) -> str:
    """How the job names a slice in its tables (entitymill.summary.slice_of)."""
    return sha256(condition.strip().encode()).hexdigest()[:16]


def read_report(output: Output, condition: str | None) -> dict[str, Any]:
    """The last run, and what the tables hold of its slice, or in all.

    Args:
        output: where the tables are.
        condition: source.where of the slice; none: all.
    """
    from deltalake import DeltaTable, QueryBuilder  # noqa: PLC0415  # loads 100 MB; the scheduler never needs it

    query = QueryBuilder()
    for name in ("runs", "documents", "entities", "rejects"):
        query = query.register(name, DeltaTable(output.address(name)))

    def rows(sql: str) -> list[dict[str, Any]]:
        return list(query.execute(sql).read_all().to_struct_array().to_pylist())

    last = rows(f"SELECT {', '.join(_OF_RUN)} FROM runs ORDER BY started_at DESC LIMIT 1")[0]
    mine = f"slice = '{slice_digest(condition)}'" if condition is not None else "true"
    claimed = rows("SELECT coalesce(sum(entities), 0) AS entities FROM documents")[0]
    pending = rows("SELECT count(*) AS documents FROM documents WHERE status = 'pending'")[0]
    held = rows("SELECT count(*) AS entities FROM entities")[0]
    # Of this run alone: the ids of a large table would not fit into a worker. Older doubles show in the sum of claims.
    new = f"FROM entities WHERE run_id = '{last['run_id']}'"
    found = rows(f"SELECT count(*) AS entities, count(DISTINCT mention_id) AS mentions {new}")[0]
    here = rows(f"SELECT count(*) AS documents, coalesce(sum(entities), 0) AS entities FROM documents WHERE {mine}")[0]
    refused = rows(f"SELECT code, count(*) AS documents FROM rejects WHERE {mine} GROUP BY code ORDER BY code")
    settings = json.loads(last.pop("settings"))
    return {
        **{key: str(value) if isinstance(value, datetime) else value for key, value in last.items()},
        "where": settings["source"]["where"],
        **here,
        "rejects": {row["code"]: row["documents"] for row in refused},
        "all_claimed": claimed["entities"],
        "all_entities": held["entities"],
        "doubled": found["entities"] - found["mentions"],
        "all_pending": pending["documents"],
    }


def judge(report: Mapping[str, Any], condition: str | None, allowed: float) -> list[str]:
    """What is wrong, a sentence each."""
    faults = []
    if report["status"] != "done":
        faults.append(f"The last run, {report['run_id']}, is {report['status']}.")
    if condition is not None and report["where"] != condition:
        faults.append(f"The last run, {report['run_id']}, was about {report['where']!r}, not {condition!r}.")
    if report["all_pending"]:
        faults.append(f"{report['all_pending']} documents are pending.")
    if report["all_claimed"] != report["all_entities"]:
        faults.append(f"documents claims {report['all_claimed']} entities, the table has {report['all_entities']}.")
    if report["doubled"]:
        faults.append(f"{report['doubled']} mentions of the last run are there more than once.")
    refused = sum(report["rejects"].values())
    ratio = refused / (refused + report["documents"]) if refused else 0.0
    if ratio > allowed:
        faults.append(f"{refused} of {refused + report['documents']} rows were refused, more than {allowed:g} allows.")
    return faults


def as_text(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in report.items())])
