"""Documents that no worker survives: counted, written to `rejects`, and kept from being published."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import RejectedError
from entitymill.run.summary import Summary
from entitymill.run.units import PlannedUnit
from entitymill.settings import Settings
from entitymill.tables import Tables
from entitymill.tables.publisher import RejectsWriter

STAGE = "recognition"
AGAIN = ", not for the first time"
"""At the end of the detail of a document that failed in the run before as well."""
_REFUSED = "doc_id string, stage string, code string, detail string"


def read_known_failures(tables: Tables) -> set[str]:
    """Return the ids of the documents that failed in runs which ended as done nevertheless, and not looked at since."""
    if tables.is_empty("rejects"):
        return set()
    failed = tables.read("rejects").where(F.col("stage") == STAGE).select("doc_id", "run_id").collect()
    if not failed:
        return set()
    done = tables.read("runs").where("status = 'done'").where(F.col("run_id").isin({row["run_id"] for row in failed}))
    runs = {row["run_id"] for row in done.select("run_id").collect()}
    return {row["doc_id"] for row in failed if row["run_id"] in runs}


def find_first_failures(tables: Tables, last: Row | None) -> DataFrame | None:
    """Return doc_id of the documents that failed in the last run for the first time: the machine may have been at fault.

    None where there are none.
    """
    if last is None or not last["rejects"] or not tables.exists("rejects"):
        return None
    theirs = (F.col("stage") == STAGE) & (F.col("run_id") == last["run_id"]) & ~F.col("detail").endswith(AGAIN)
    # Pinned: the run changes `rejects` before it reads the texts of these.
    found = tables.read_pinned("rejects").where(theirs).select("doc_id")
    return found if found.take(1) else None


@dataclass(frozen=True)
class Failures:
    """The failed documents of one run.

    summary: counts them.
    rejects: lists them.
    before: ids of `read_known_failures` when the run began.
    """

    spark: SparkSession
    settings: Settings
    summary: Summary
    rejects: RejectsWriter
    before: set[str]

    def record(self, recognised: DataFrame, piece: PlannedUnit) -> tuple[DataFrame, DataFrame]:
        """Write down the failed documents of a unit, and give up where they are too many.

        Args:
            recognised: schemas.RECOGNISED of the unit, some with a failure.
            piece: the unit.

        Returns:
            The other documents, and doc_id of these.

        Raises:
            RejectedError: more documents failed than limits.max_reject_ratio allows.
        """
        rows = recognised.where(F.col("failure").isNotNull()).select("doc_id", "failure.code", "failure.detail")
        # Kept on the driver: were they computed again, others might fail.
        again = dict.fromkeys(self.before, AGAIN)
        failed = [(row.doc_id, STAGE, row.code, row.detail + again.get(row.doc_id, "")) for row in rows.collect()]
        refused = self.spark.createDataFrame(failed, _REFUSED)
        self.rejects.add(refused)
        for _, _, code, _ in failed:
            self.summary.rejects[code] = self.summary.rejects.get(code, 0) + 1
        ids = [doc_id for doc_id, *_ in failed]
        self.check_ratio(ids, piece)
        return exclude_failed(recognised, ids), refused.select("doc_id")

    def check_ratio(self, failed: list[str], piece: PlannedUnit) -> None:
        """Give up where too many documents failed.

        Args:
            failed: doc_id of those of a unit.
            piece: the unit.

        Raises:
            RejectedError: more than limits.max_reject_ratio allows.
        """
        ratio = self.settings.limits.max_reject_ratio
        # Nor do those that are tried in vain again and again: they may be all that is new.
        new = sum(doc_id not in self.before for doc_id in failed)
        if new > 1 and new > ratio * piece.rows:  # one document never fails a unit
            raise RejectedError(
                f"{new} of {piece.rows} documents of a unit of {self.settings.source.path} crash or hang the tagger, more "
                f"than limits.max_reject_ratio {ratio:g} allows: the unit was not published; the rejects table lists them. "
                "Mend the machines or the texts, or raise the ratio for one run, after which these documents do not count."
            )


def exclude_failed(recognised: DataFrame, failed: list[str]) -> DataFrame:
    """The documents of a unit that did not fail.

    Args:
        recognised: of the unit; Spark may compute a lost part of it again.
        failed: doc_id of those that did.
    """
    theirs = F.col("doc_id").isin(failed)
    late = F.raise_error(F.lit("a document failed that did not fail before, in a part that was lost: run again"))
    # Spark may look at the mentions of a row before it drops the row: so the same condition twice.
    mentions = F.when(F.col("failure").isNull() | theirs, F.col("mentions")).otherwise(late)
    return recognised.where(~theirs).withColumn("mentions", mentions)
