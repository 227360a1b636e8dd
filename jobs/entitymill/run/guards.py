"""Before a run does anything: what it finds, and what it refuses to destroy.

It refuses the output of another source, and to remove more documents than anybody expects of a night.
"""

from __future__ import annotations

import logging

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError, RejectedError, SettingsError
from entitymill.run import failed_documents
from entitymill.run.summary import Summary, compute_scope, compute_slice_digest
from entitymill.settings import Settings
from entitymill.source.change_feed import NON_DATA_OPERATIONS
from entitymill.source.changes import Changes
from entitymill.source.reader import Source, open_source
from entitymill.tables import Stamp, Tables, parquet_export, table_setup
from entitymill.tables.maintenance import DOCUMENT_TABLES
from entitymill.tables.runs import Record, Runs
from entitymill.workers.engine import Engine

log = logging.getLogger(__name__)


def check_owner(settings: Settings, owner: str | None) -> None:
    """Refuse to take over the output of another source: all its documents would be removed.

    Args:
        owner: source of the output; none where no run was.

    Raises:
        SettingsError: it is another one.
    """
    if not is_another_source(settings, owner):
        return
    here = settings.dump_masked()["source"]["path"]
    output = settings.output.path or settings.output.schema_
    raise SettingsError(
        f"source.path: the output {output} is of {owner}, whose documents would all be removed; give {here} an "
        "output of its own, or set output.adopt_source=true if it takes the place of the other."
    )


def is_another_source(settings: Settings, owner: str | None) -> bool:
    """Whether an output belongs to another source than the settings name, and they do not say that this one adopts it.

    Args:
        owner: source of the output; None where no run was.
    """
    here = settings.dump_masked()["source"]["path"]
    return owner is not None and not settings.output.adopt_source and owner.rstrip("/") != here.rstrip("/")


def check_slice_tables(tables: Tables, slice_: str | None) -> None:
    """Refuse to recompute one slice where a table is gone: the documents of the other slices would stay lost.

    Args:
        slice_: digest of the slice that the run is about; None: the whole source.

    Raises:
        OutputError: one of the two tables is gone, and the other has rows.
    """
    if slice_ is None or tables.is_complete():
        return
    if any(tables.exists(name) and tables.read(name).take(1) for name in ("entities", "documents")):
        raise OutputError(
            f"output: a table of {tables.place} is gone, so all documents have to be recomputed: run once without "
            "output.replace_slice, over all slices."
        )


def check_removals(settings: Settings, tables: Tables, found: Changes, slice_: str | None) -> None:
    """Refuse to take out more documents than a person expects of one run.

    Args:
        found: what the run would do.
        slice_: digest of the slice that it is about; None: the whole source.

    Raises:
        RejectedError: it would take out a larger share than limits.max_removed_ratio.
    """
    if not found.to_remove:
        return
    held = tables.read("documents")
    if slice_ is not None:
        held = held.where(F.col("slice") == slice_)
    documents = max(found.to_remove, held.count())
    allowed = settings.limits.max_removed_ratio
    if found.to_remove > allowed * documents:
        raise RejectedError(
            f"source.path: {found.to_remove} of the {documents} documents of {tables.place} are no longer in "
            f"{settings.source.path}, a larger share than limits.max_removed_ratio {allowed:g} allows: nothing was changed; "
            "if that is right, run once with --allow-removals."
        )


def exceeds_reject_ratio(settings: Settings, found: Changes) -> bool:
    """Whether `check_rejects` would refuse a source."""
    return bool(found.rows) and sum(found.reject_counts.values()) / found.rows > settings.limits.max_reject_ratio


def check_rejects(settings: Settings, found: Changes, tense: str = "were") -> None:
    """Refuse a source of which too much is refused.

    Args:
        found: what the run would do.
        tense: for the message.

    Raises:
        RejectedError: a larger share of its rows than limits.max_reject_ratio.
    """
    if exceeds_reject_ratio(settings, found):
        refused, allowed = sum(found.reject_counts.values()), settings.limits.max_reject_ratio
        reasons = ", ".join(f"{rows} {code}" for code, rows in sorted(found.reject_counts.items()))
        raise RejectedError(
            f"{refused} of {found.rows} rows of {settings.source.path} {tense} refused ({reasons}), more than "
            f"limits.max_reject_ratio {allowed:g} allows: nothing was published"
            + ("; the rejects table lists the rows." if tense == "were" else ".")
        )


def open_checked_source(
    spark: SparkSession, settings: Settings, summary: Summary, engine: Engine, owner: str | None
) -> tuple[Source, Stamp]:
    """Open the source, if the output may be where it is and belongs to no other source; and say what a run's rows carry.

    Args:
        summary: gets the run's scope.
        engine: of the run.
        owner: source of the output; None where no run was.
    """
    source = open_source(spark, settings.source)
    if settings.output.path is not None:
        try:
            source.check_output(settings.output.path)
        except OSError as error:
            raise OutputError(f"output.path: {settings.output.path} cannot be reached: {error}.") from error
    summary.scope = compute_scope(settings, source.identity)
    stamp = Stamp(
        summary.run_id,
        summary.started_at,
        engine.name,
        engine.fingerprint,
        source.version,
        compute_slice_digest(settings),
        source.committed_ms,
    )
    check_owner(settings, owner)
    return source, stamp


def read_record(tables: Tables, runs: Runs) -> Record:
    """Read `runs`; where it is somebody else's table, the check of all tables says so."""
    try:
        return runs.read_record()
    except (PySparkException, Py4JJavaError):
        table_setup.check_tables(tables)
        raise


def is_unchanged_since(tables: Tables, latest: Row | None) -> bool:
    """Whether the tables are as the latest run left them, as far as rows go: OPTIMIZE and VACUUM change none."""
    recorded = None if latest is None else latest["output_versions"]
    if not recorded or any(tables.exists(name) for name in DOCUMENT_TABLES if name not in recorded):
        return False
    for name, before in recorded.items():
        if not tables.exists(name):
            return False
        present = tables.version(name)
        if present == before:
            continue
        since = tables.history(name, max(present - before, 1)).where(F.col("version") > before)
        operations = [row["operation"] for row in since.select("operation").collect()]
        if present < before or len(operations) < present - before or not NON_DATA_OPERATIONS.issuperset(operations):
            log.warning("%s: others wrote to it (%s); checking all documents", tables.address(name), ", ".join(operations))
            return False
    return True


def is_same_job(record: Record, summary: Summary, stamp: Stamp, source: Source) -> bool:
    """Whether the last run was about the same rows, under the same settings, and ended as done.

    A source whose condition may hold for other rows by now is never the same.
    """
    last = record.last
    if source.nondeterministic or last is None or not record.settled:
        return False
    return bool((last.status, last.scope, last.fingerprint) == ("done", summary.scope, stamp.fingerprint))


def has_nothing_to_do(record: Record, tables: Tables, summary: Summary, stamp: Stamp, source: Source) -> bool:
    """Whether the last run did the same for the same version of the source, and the tables are as it left them."""
    last = record.last
    if last is None or stamp.source_version == "unversioned" or not is_same_job(record, summary, stamp, source):
        return False
    if (last.source_version, last.source_committed) != (stamp.source_version, stamp.source_committed):
        return False
    if failed_documents.find_first_failures(tables, last) is not None or not is_unchanged_since(tables, record.latest):
        return False
    return tables.is_complete() and (not tables.exported or parquet_export.is_current(tables))
