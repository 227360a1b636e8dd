"""Reject documents that crash the tagger or make it hang: count them, and write their ids to the `rejects` table.

The tagger runs the model, in a child process next to a Spark worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import RejectedError
from entitymill.run.summary import Summary
from entitymill.run.work_units import PlannedUnit
from entitymill.run_row import RunRow
from entitymill.settings import Settings
from entitymill.spark.private_session import create_frame
from entitymill.tables import Tables
from entitymill.tables.publisher import RejectsWriter

STAGE = "recognition"
AGAIN = ", not for the first time"
"""End of the text in the column `detail` of `rejects` if recognition of the document also failed in an earlier run whose
status is done."""
_REJECTED = "doc_id string, stage string, code string, detail string"


def read_known_failures(tables: Tables) -> set[str]:
    """Return the ids of documents that crashed the tagger or made it hang in an earlier run whose status is done.

    The ids are read from `rejects`, where a later run may have replaced or deleted a document's row. Failures in runs with
    another status are left out: if they stopped a run (see `check_ratio`), they must stop the next run, too.
    """
    if not tables.exists("rejects") or tables.is_empty("rejects"):
        return set()
    failed = tables.read_latest("rejects").where(F.col("stage") == STAGE).select("doc_id", "run_id").collect()
    if not failed:
        return set()
    done = tables.read_latest("runs").where("status = 'done'").where(F.col("run_id").isin({row["run_id"] for row in failed}))
    runs = {row["run_id"] for row in done.select("run_id").collect()}
    return {row["doc_id"] for row in failed if row["run_id"] in runs}


def find_failures_to_retry(tables: Tables, last: RunRow | None) -> DataFrame | None:
    """Return a DataFrame with the doc_id of each document whose recognition failed for the first time in run `last`.

    Recognition of a document fails if the document crashes the tagger (the model's process) or makes it hang. The next run
    retries the document once, because the machine may be to blame. Documents that also failed in a run before `last` are
    left out if that run's status is done.

    Args:
        last: row of `runs` of the last run; None if there was no run.

    Returns:
        The DataFrame, or None if there are no such documents.
    """
    if last is None or not last.rejects or not tables.exists("rejects"):
        return None
    theirs = (F.col("stage") == STAGE) & (F.col("run_id") == last.run_id) & ~F.col("detail").endswith(AGAIN)
    # `read_latest` pins the table's version, because this run changes `rejects` before Spark computes this DataFrame.
    found = tables.read_latest("rejects").where(theirs).select("doc_id")
    return found if found.take(1) else None


@dataclass(frozen=True)
class FailureRecorder:
    """Records the failed documents of one run: documents that crashed the tagger (the model's process) or made it hang.

    summary: summary of the run, in which the failed documents are counted.
    before: ids of documents that failed in earlier runs; the caller must read them with `read_known_failures` before this
        run changes `rejects`.
    """

    spark: SparkSession
    settings: Settings
    summary: Summary
    rejects: RejectsWriter
    before: set[str]

    def record(self, recognized: DataFrame, unit: PlannedUnit) -> tuple[DataFrame, DataFrame]:
        """Count a unit's documents whose recognition failed, write them to `rejects`, and separate them from the others.

        In `rejects`, the `detail` of a document that also failed in earlier runs (`before`) ends with AGAIN.

        Args:
            recognized: DataFrame of the unit's documents, with the columns schemas.RECOGNIZED; `failure` is null if
                recognition of the document succeeded.
            unit: unit of work to which the documents belong.

        Returns:
            The documents that did not fail (see `exclude_failed`), and a DataFrame with the doc_id of the failed documents.

        Raises:
            RejectedError: a larger share of documents failed than limits.max_reject_ratio allows (see `check_ratio`). The
                rows that this call added to `rejects` are kept.
        """
        rows = recognized.where(F.col("failure").isNotNull()).select("doc_id", "failure.code", "failure.detail")
        # Collect the failures on the driver: if Spark recomputed them later, other documents might fail.
        again = dict.fromkeys(self.before, AGAIN)
        failed = [(row.doc_id, STAGE, row.code, row.detail + again.get(row.doc_id, "")) for row in rows.collect()]
        rejected = create_frame(self.spark, failed, _REJECTED)
        self.rejects.add(rejected)
        for _, _, code, _ in failed:
            self.summary.rejects[code] = self.summary.rejects.get(code, 0) + 1
        ids = [doc_id for doc_id, *_ in failed]
        self.check_ratio(ids, unit)
        return exclude_failed(recognized, ids), rejected.select("doc_id")

    def check_ratio(self, failed: list[str], unit: PlannedUnit) -> None:
        """Raise RejectedError if recognition failed for a larger share of a unit than limits.max_reject_ratio allows.

        Documents that also failed in earlier runs do not count, and one failure is always allowed. `failed` has the ids of
        all documents of the unit whose recognition failed.
        """
        ratio = self.settings.limits.max_reject_ratio
        # If known failures counted, a unit of only a few documents that fail in every run would stop every run.
        new = sum(doc_id not in self.before for doc_id in failed)
        if new > 1 and new > ratio * unit.rows:
            raise RejectedError(
                f"{new} of {unit.rows} documents of a unit of {self.settings.source.path} crash the tagger or make it hang, "
                f"more than `limits.max_reject_ratio: {ratio:g}` allows. The unit was not published; `rejects` lists these "
                "documents. Fix the machines or the texts, or raise the ratio for one run: once that run has succeeded, "
                "later runs do not count these documents."
            )


def exclude_failed(recognized: DataFrame, failed: list[str]) -> DataFrame:
    """Return a unit's documents without those whose recognition failed; `failed` has the ids of the failed documents.

    The DataFrame is lazy. If Spark later recomputes a lost partition, and a document that is not in `failed` fails then, the
    query raises an error.
    """
    has_failed = F.col("doc_id").isin(failed)
    late = F.raise_error(
        F.lit("a document crashed the tagger or made it hang only when Spark recomputed a lost partition: run again")
    )
    # The condition includes `has_failed`, because Spark may evaluate a row's mentions before it filters the row.
    mentions = F.when(F.col("failure").isNull() | has_failed, F.col("mentions")).otherwise(late)
    return recognized.where(~has_failed).withColumn("mentions", mentions)
