"""Check, after a run of the job, that the output's tables agree with each other, and that not too many rows were rejected.

A run covers the complete source or one slice, which is the part of the source that belongs to one data interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from entitymill_dags.arguments import build_condition
from entitymill_dags.tables import Output, Table

_RUN_COLUMNS = (
    "run_id", "status", "mode", "model", "started_at", "ended_at", "documents AS processed", "removed", "settings",
    "sentences_per_second",
)  # fmt: skip
MAX_RUNS = 1000
"""Number of latest runs among which the check looks for the last run of a slice."""
SOURCE_STAGE = "source"
"""The stage, in the `rejects` table, of source rows that are not valid documents. The check counts only rows of this stage,
because the job itself limits how many documents the tagger may reject."""


class ReportLink(BaseOperatorLink):
    """A link in Airflow's pages to the report of the check."""

    name = "Run report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002  # Airflow's signature
        """Return the path of the page with the task's XComs, which include the report."""
        return f"/dags/{ti_key.dag_id}/runs/{ti_key.run_id}/tasks/{ti_key.task_id}/xcom"


class CheckTables(BaseOperator):
    """An operator that checks the output's tables without Spark, pushes a report to XCom, and fails if it finds a fault."""

    operator_extra_links = (ReportLink(),)

    def __init__(self, *, table: Table, home: str, **options: Any) -> None:
        """Keep the arguments; nothing is read yet.

        Args:
            table: the table in `tables.yaml` whose run is checked.
            home: the repository's directory, to which paths are relative.
            options: arguments of BaseOperator.
        """
        super().__init__(**options)
        self.table = table
        self.home = home

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Check the tables, return the report, and add its run id and counts to the event of the asset.

        Raises:
            AirflowFailException: the report has a fault (see `find_faults`), no run covered the slice, or this run has no
                data interval. A retry would not help.
            AirflowException: the report has a fault, but a run is still changing the tables; a retry may help.
        """
        condition = build_condition(self.table, context)
        output = self.table.output
        if output.path is not None and "://" not in output.path:
            output = Output(path=str(Path(self.home) / output.path))
        report = read_report(output, condition)
        faults = find_faults(report, context["params"]["max_reject_ratio"])
        self.log.info("%s", format_report(report))
        context["ti"].xcom_push(key="report", value=format_report(report))
        if faults and report["at_work"]:
            raise AirflowException(
                f"{' '.join(faults)} Run {report['at_work']} is still changing these tables, which may be the reason."
            )
        if faults:
            raise AirflowFailException(" ".join(faults))
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {key: report[key] for key in ("run_id", "documents", "entities")}
        return report


def compute_slice_digest(condition: str) -> str:
    """Return the digest that identifies a slice in the tables' column `slice`; `condition` is the slice's `source.where`.

    The job computes the same digest (see `entitymill.run.summary`), but Airflow's workers lack its package.
    """
    return sha256(condition.strip().encode()).hexdigest()[:16]


def read_report(output: Output, condition: str | None) -> dict[str, Any]:
    """Return a report on the last run of a slice, or of the complete source: the run's row, and counts from the tables.

    Args:
        output: path or schema of the tables.
        condition: source.where of the slice, or None for the complete source.

    Returns:
        The columns of `runs` for that run, except `settings`, and with `documents` renamed to `processed`. In addition:
            where: the condition.
            documents, entities: number of documents of the slice or source, and the sum of their `entities` column.
            rejects: a dict from each reject code to the number of rejected rows.
            refused: number of the rejected rows that are not valid documents.
            found: number of rows in the `entities` table for the documents of the slice or source.
            doubled: number of rows of `entities` from that run that repeat a mention id.
            at_work: id of the latest run with the status `running`, or None.

    Raises:
        AirflowFailException: none of the last MAX_RUNS runs covered the slice or, without `condition`, the complete source.
    """
    from deltalake import DeltaTable, QueryBuilder  # noqa: PLC0415  # loads 100 MB; the scheduler never needs it

    plain = output.path is not None and _is_plain_parquet(output.address("entities"))
    query = QueryBuilder()
    for name in ("runs", "documents", "rejects", *(() if plain else ("entities",))):
        query = query.register(name, DeltaTable(output.address(name)))

    def fetch(sql: str) -> list[dict[str, Any]]:
        return list(query.execute(sql).read_all().to_struct_array().to_pylist())

    runs = fetch(f"SELECT {', '.join(_RUN_COLUMNS)} FROM runs ORDER BY started_at DESC LIMIT {MAX_RUNS}")
    last = next((run for run in runs if _covers_rows(run, condition)), None)
    if last is None:
        raise AirflowFailException(
            f"None of the last {len(runs)} runs on {output.address('runs')} covered {condition or 'the complete source'}: "
            "see the log of the task `extract`."
        )
    # Only this slice is counted, because a run of another slice may be changing the tables now.
    scope = f"slice = '{compute_slice_digest(condition)}'" if condition is not None else "true"
    counts = fetch(f"SELECT count(*) AS documents, coalesce(sum(entities), 0) AS entities FROM documents WHERE {scope}")[0]
    if plain:
        ids = None if condition is None else [row["doc_id"] for row in fetch(f"SELECT doc_id FROM documents WHERE {scope}")]
        scope_rows, run_rows = _count_parquet_rows(output.address("entities"), ids, last["run_id"])
    else:
        joined = (
            f"JOIN documents ON documents.doc_id = entities.doc_id AND documents.{scope}" if condition is not None else ""
        )
        scope_rows = fetch(f"SELECT count(*) AS entities FROM entities {joined}")[0]
        # Duplicate ids are counted only among this run's rows, because all ids of a large table would not fit into a worker.
        # Duplicates from older runs are detected, too, because they make `found` differ from `entities`.
        new = f"FROM entities WHERE run_id = '{last['run_id']}'"
        run_rows = fetch(f"SELECT count(*) AS entities, count(DISTINCT mention_id) AS mentions {new}")[0]
    refused = fetch(
        f"SELECT stage, code, count(*) AS documents FROM rejects WHERE {scope} GROUP BY stage, code ORDER BY code"
    )
    return {
        **{key: str(value) if isinstance(value, datetime) else value for key, value in last.items() if key != "settings"},
        "where": condition,
        **counts,
        "rejects": {row["code"]: row["documents"] for row in refused},
        "refused": sum(row["documents"] for row in refused if row["stage"] == SOURCE_STAGE),
        "found": scope_rows["entities"],
        "doubled": run_rows["entities"] - run_rows["mentions"],
        "at_work": next((run["run_id"] for run in runs if run["status"] == "running"), None),
    }


def _is_plain_parquet(entities: str) -> bool:
    """Return whether `entities` is plain Parquet (output.format parquet), which the job never writes to object storage."""
    return Path(entities).is_dir() and not (Path(entities) / "_delta_log").is_dir()


def _count_parquet_rows(entities: str, ids: list[str] | None, run_id: str) -> tuple[dict[str, int], dict[str, int]]:
    """Count the rows of some documents, and the rows and distinct mention ids of a run, in a table of plain Parquet.

    Args:
        entities: path of the `entities` table.
        ids: the ids of the documents; None for all documents.
        run_id: the id of the run.

    Returns:
        A dict with the number of rows of the documents; a dict with the numbers of rows and distinct mention ids of the run.
    """
    from pyarrow import array, dataset  # noqa: PLC0415  # only this format needs it

    if not any(Path(entities).rglob("*.parquet")):  # no mention at all
        return {"entities": 0}, {"entities": 0, "mentions": 0}
    table = dataset.dataset(entities, format="parquet", partitioning="hive")
    # The type is explicit, because Arrow cannot infer it from an empty list.
    has_id = None if ids is None else dataset.field("doc_id").isin(array(ids, table.schema.field("doc_id").type))
    mention_ids = table.to_table(["mention_id"], filter=dataset.field("run_id") == run_id)["mention_id"]
    of_run = {"entities": len(mention_ids), "mentions": len(mention_ids.unique())}
    return {"entities": table.count_rows(filter=has_id)}, of_run


def _covers_rows(run: Mapping[str, Any], condition: str | None) -> bool:
    """Return whether a run covered exactly the slice with this condition or, if `condition` is None, the complete source.

    `run` is a row of the `runs` table. Rows with the mode `maintenance`, which `entitymill maintain` and `entitymill erase`
    write, and rows without settings covered nothing.
    """
    if run["settings"] is None or run["mode"] == "maintenance":
        return False
    settings = json.loads(run["settings"])
    sliced = settings["output"]["replace_slice"]
    return bool(sliced and settings["source"]["where"] == condition) if condition is not None else not sliced


def find_faults(report: Mapping[str, Any], max_ratio: float) -> list[str]:
    """Return a list with one sentence for each fault in a report; empty if there is none.

    There are four faults:
    - The status of the run is not `done`.
    - `documents` counts more or fewer entities than `entities` has rows.
    - The run wrote a mention more than once.
    - Too many source rows were not valid documents.

    Args:
        report: the result of `read_report`.
        max_ratio: largest allowed share of rejected rows among all rows, from 0 to 1.
    """
    faults = []
    if report["status"] != "done":
        faults.append(f"The last run, {report['run_id']}, has the status {report['status']}.")
    if report["entities"] != report["found"]:
        faults.append(
            f"The table documents counts {report['entities']} entities, but the table entities has {report['found']} rows."
        )
    if report["doubled"]:
        faults.append(f"{report['doubled']} mentions of the last run are in the table entities more than once.")
    refused = report["refused"]
    ratio = refused / (refused + report["documents"]) if refused else 0.0
    if ratio > max_ratio:
        faults.append(f"{refused} of {refused + report['documents']} rows were rejected; max_reject_ratio is {max_ratio:g}.")
    return faults


def format_report(report: Mapping[str, Any]) -> str:
    """Return the report as a Markdown table."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in report.items())])
