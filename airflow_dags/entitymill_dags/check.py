"""After a run: do its tables agree with each other, and was little enough refused?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from entitymill_dags.arguments import where
from entitymill_dags.tables import Output, Table

_OF_RUN = (
    "run_id", "status", "mode", "model", "started_at", "ended_at", "documents AS processed", "removed", "settings",
    "sentences_per_second",
)  # fmt: skip
RUNS_LOOKED_AT = 1000
SOURCE_STAGE = "source"
"""Of `rejects`: rows that are no documents. Those of the other stage, which crash the tagger, the job itself judged."""


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
            AirflowException: the same, while another run changes them; trying again may help.
        """
        condition = where(self.table, context)
        output = self.table.output
        if output.path is not None and "://" not in output.path:
            output = Output(path=str(Path(self.home) / output.path))
        report = read_report(output, condition)
        faults = judge(report, context["params"]["max_reject_ratio"])
        self.log.info("%s", as_text(report))
        context["ti"].xcom_push(key="report", value=as_text(report))
        if faults and report["at_work"]:
            raise AirflowException(f"{' '.join(faults)} Run {report['at_work']} is at work on these tables.")
        if faults:
            raise AirflowFailException(" ".join(faults))
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {key: report[key] for key in ("run_id", "documents", "entities")}
        return report


def slice_digest(condition: str) -> str:
    """How the job names a slice in its tables (entitymill.run.summary.compute_slice_digest)."""
    return sha256(condition.strip().encode()).hexdigest()[:16]


def read_report(output: Output, condition: str | None) -> dict[str, Any]:
    """The last run about a slice, or about everything, and what the tables hold of it.

    Args:
        output: where the tables are.
        condition: source.where of the slice; none: everything.

    Raises:
        AirflowFailException: there is no such run among the last ones.
    """
    from deltalake import DeltaTable, QueryBuilder  # noqa: PLC0415  # loads 100 MB; the scheduler never needs it

    plain = output.path is not None and _is_plain(output.address("entities"))
    query = QueryBuilder()
    for name in ("runs", "documents", "rejects", *(() if plain else ("entities",))):
        query = query.register(name, DeltaTable(output.address(name)))

    def rows(sql: str) -> list[dict[str, Any]]:
        return list(query.execute(sql).read_all().to_struct_array().to_pylist())

    runs = rows(f"SELECT {', '.join(_OF_RUN)} FROM runs ORDER BY started_at DESC LIMIT {RUNS_LOOKED_AT}")
    last = next((run for run in runs if _about(run, condition)), None)
    if last is None:
        raise AirflowFailException(f"None of the last {len(runs)} runs on {output.address('runs')} was about {condition}.")
    # Of a slice alone: a run about another one may be at work.
    mine = f"slice = '{slice_digest(condition)}'" if condition is not None else "true"
    here = rows(f"SELECT count(*) AS documents, coalesce(sum(entities), 0) AS entities FROM documents WHERE {mine}")[0]
    if plain:
        ids = None if condition is None else [row["doc_id"] for row in rows(f"SELECT doc_id FROM documents WHERE {mine}")]
        held, found = _counted(output.address("entities"), ids, last["run_id"])
    else:
        joined = (
            f"JOIN documents ON documents.doc_id = entities.doc_id AND documents.{mine}" if condition is not None else ""
        )
        held = rows(f"SELECT count(*) AS entities FROM entities {joined}")[0]
        # Of this run alone: the ids of a large table would not fit into a worker. Older doubles show in the sum of claims.
        new = f"FROM entities WHERE run_id = '{last['run_id']}'"
        found = rows(f"SELECT count(*) AS entities, count(DISTINCT mention_id) AS mentions {new}")[0]
    refused = rows(f"SELECT stage, code, count(*) AS documents FROM rejects WHERE {mine} GROUP BY stage, code ORDER BY code")
    return {
        **{key: str(value) if isinstance(value, datetime) else value for key, value in last.items() if key != "settings"},
        "where": condition,
        **here,
        "rejects": {row["code"]: row["documents"] for row in refused},
        "refused": sum(row["documents"] for row in refused if row["stage"] == SOURCE_STAGE),
        "found": held["entities"],
        "doubled": found["entities"] - found["mentions"],
        "at_work": next((run["run_id"] for run in runs if run["status"] == "running"), None),
    }


def _is_plain(entities: str) -> bool:
    """Whether `entities` is plain Parquet (output.format parquet), which is never on an object store."""
    return Path(entities).is_dir() and not (Path(entities) / "_delta_log").is_dir()


def _counted(entities: str, ids: list[str] | None, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """Rows of some documents, or of all; rows, and different mentions, of a run: of plain Parquet."""
    from pyarrow import array, dataset  # noqa: PLC0415  # comes with deltalake

    if not any(Path(entities).rglob("*.parquet")):  # no mention at all
        return {"entities": 0}, {"entities": 0, "mentions": 0}
    held = dataset.dataset(entities, format="parquet", partitioning="hive")
    # Typed: of no ids at all Arrow does not know what they are.
    of_ids = None if ids is None else dataset.field("doc_id").isin(array(ids, held.schema.field("doc_id").type))
    new = held.to_table(["mention_id"], filter=dataset.field("run_id") == run_id)["mention_id"]
    return {"entities": held.count_rows(filter=of_ids)}, {"entities": len(new), "mentions": len(new.unique())}


def _about(run: Mapping[str, Any], condition: str | None) -> bool:
    """Whether a run was about a slice; about everything, where none is asked for."""
    if run["settings"] is None:  # maintenance
        return False
    settings = json.loads(run["settings"])
    sliced = settings["output"]["replace_slice"]
    return bool(sliced and settings["source"]["where"] == condition) if condition is not None else not sliced


def judge(report: Mapping[str, Any], allowed: float) -> list[str]:
    """What is wrong, a sentence each.

    Args:
        report: of read_report.
        allowed: share of refused rows.
    """
    faults = []
    if report["status"] != "done":
        faults.append(f"The last run, {report['run_id']}, is {report['status']}.")
    if report["entities"] != report["found"]:
        faults.append(f"documents claims {report['entities']} entities, the table has {report['found']}.")
    if report["doubled"]:
        faults.append(f"{report['doubled']} mentions of the last run are there more than once.")
    refused = report["refused"]
    ratio = refused / (refused + report["documents"]) if refused else 0.0
    if ratio > allowed:
        faults.append(f"{refused} of {refused + report['documents']} rows were refused, more than {allowed:g} allows.")
    return faults


def as_text(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in report.items())])
