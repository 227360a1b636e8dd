"""Check a run before it publishes anything, refuse runs that would destroy data, and find what changed since the last run.

A run may not take over the output of another source. It also may not remove or reject a larger share of documents than the
settings allow.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError, RejectedError, SettingsError, StorageError
from entitymill.run import crashing_documents
from entitymill.run.summary import Summary, compute_scope, compute_slice_digest
from entitymill.settings import Settings, secret_masking
from entitymill.settings.sections import SourceSettings
from entitymill.source import change_feed, changes
from entitymill.source.changes import Changes
from entitymill.source.reader import Source, open_source
from entitymill.spark import spark_connect, storage
from entitymill.spark.files_on_this_machine import FILE, to_local_path
from entitymill.spark.overlapping_paths import list_normalized_paths
from entitymill.spark.sql_text import split_name
from entitymill.tables import Tables, parquet_export, recovery, table_setup
from entitymill.tables.publisher import Provenance
from entitymill.tables.runs import Record, Runs
from entitymill.workers.engine_choice import Engine

log = logging.getLogger(__name__)


def locate_source(spark: SparkSession, source: SourceSettings) -> str:
    """Return where a source is: an absolute path on the local disk, a URI without credentials, or a table's full name.

    A table's name is in lower case. If the storage of a path cannot be reached, the result is the path in the settings,
    without credentials.
    """
    if source.format == "table":
        levels = split_name(source.path)
        current = (spark.catalog.currentCatalog(), spark.catalog.currentDatabase())
        return ".".join((*current[: max(0, 3 - len(levels))], *levels)).lower()
    address = source.path
    with suppress(OSError, StorageError):
        address = storage.qualify(spark, address)
    if address.startswith(FILE):
        # With Spark Connect, `qualify` has also followed links, which may lead elsewhere tomorrow.
        address = os.path.abspath(to_local_path(source.path if spark_connect.is_remote(spark) else address))  # noqa: PTH100
    return secret_masking.mask_address(address.replace("dbfs:/Volumes/", "/Volumes/", 1))


def check_owner(settings: Settings, here: str, owner: str | None) -> None:
    """Raise SettingsError if the output belongs to another source, because the run would remove that source's documents.

    `here` and `owner` are results of `locate_source`: for the source in the settings, and for the source from which the
    output was written. `owner` is None if there has been no run. With output.adopt_source, no error is raised.
    """
    if not is_another_source(settings, here, owner):
        return
    output = settings.output.path or settings.output.schema_
    raise SettingsError(
        f"source.path: the output {output} belongs to {owner}, whose documents would all be removed; give {here} an "
        f"output of its own, or set output.adopt_source=true if {here} replaces {owner}."
    )


def is_another_source(settings: Settings, here: str, owner: str | None) -> bool:
    """Return whether the output belongs to a different source than the settings name; False if output.adopt_source is set.

    Spellings of a path and symbolic links make no difference. With Spark Connect, an earlier run may have recorded an owner
    without a scheme, such as `/data`. Such an owner is not another source if source.path is the same text.

    Args:
        here: result of `locate_source` for the source in the settings.
        owner: result of `locate_source` for the source from which the output was written; None if there has been no run.
    """
    if owner is None or settings.output.adopt_source:
        return False
    if settings.source.format == "table":
        return owner != here
    if owner.startswith("/") and owner == settings.dump_masked()["source"]["path"]:
        return False
    return set(list_normalized_paths(here)).isdisjoint(list_normalized_paths(owner))


def check_slice_tables(tables: Tables, slice_: str | None) -> None:
    """Raise OutputError if a run that replaces a slice would leave a table without the rows of other slices.

    This happens if one of `entities` and `documents` is missing, although the remaining table has rows. A slice is the rows
    that source.where selects. `slice_` is the digest of source.where, or None if the run replaces the whole output.
    """
    if slice_ is None or tables.is_complete():
        return
    if any(tables.exists(name) and tables.read(name).take(1) for name in ("entities", "documents")):
        raise OutputError(
            f"output: a table of {tables.output} is missing, so all documents have to be recomputed. Run once with "
            "output.replace_slice=false, and without source.where or with one that selects the rows of all slices."
        )


def check_removals(settings: Settings, tables: Tables, found: Changes, slice_: str | None) -> None:
    """Raise RejectedError if a run would remove a larger share of the documents than limits.max_removed_ratio.

    If the run replaces a slice (the rows that source.where selects), only documents of the slice count. `slice_` is the
    digest of source.where, or None if the run replaces the whole output. `found` is what the run would change.
    """
    if not found.to_remove:
        return
    held = tables.read_latest("documents")
    if slice_ is not None:
        held = held.where(F.col("slice") == slice_)
    documents = max(found.to_remove, held.count())
    allowed = settings.limits.max_removed_ratio
    if found.to_remove > allowed * documents:
        raise RejectedError(
            f"source.path: {found.to_remove} of the {documents} documents of {tables.output} are no longer in "
            f"{settings.source.path}, a larger share than `limits.max_removed_ratio: {allowed:g}` allows. Nothing was "
            "changed. If these documents were deleted on purpose, run once with --allow-removals."
        )


def exceeds_reject_ratio(settings: Settings, found: Changes) -> bool:
    """Return whether the ratio of rejected rows to `found.rows` exceeds limits.max_reject_ratio; False if `rows` is 0."""
    return bool(found.rows) and sum(found.reject_counts.values()) / found.rows > settings.limits.max_reject_ratio


def check_rejects(settings: Settings, found: Changes, verb: str = "were") -> None:
    """Raise RejectedError if the ratio of rejected rows to `found.rows` exceeds limits.max_reject_ratio.

    `verb` is for the message: "were", or "would be" in a dry run.
    """
    if exceeds_reject_ratio(settings, found):
        rejected, allowed = sum(found.reject_counts.values()), settings.limits.max_reject_ratio
        reasons = ", ".join(f"{rows} {code}" for code, rows in sorted(found.reject_counts.items()))
        raise RejectedError(
            f"{rejected} of {found.rows} rows of {settings.source.path} {verb} rejected ({reasons}), more than "
            f"`limits.max_reject_ratio: {allowed:g}` allows. Nothing was published"
            + ("; the rows are in the `rejects` table." if verb == "were" else ".")
            + " Correct the rows, or raise the ratio."
        )


def open_checked_source(
    spark: SparkSession, settings: Settings, summary: Summary, engine: Engine, owner: str | None
) -> tuple[Source, Provenance]:
    """Open the source, check that the run may write to the output, and set `summary.scope`.

    The scope is a digest of the source table and of the settings that decide which documents a run processes.

    Args:
        engine: model and sentence detector of the run.
        owner: source from which the output was written, as `locate_source` returned it; None if there has been no run.

    Returns:
        A tuple of the source, and the values that show from which run, model and source version a row of the output comes.

    Raises:
        EntityMillError: the source cannot be read, its directory and output.path overlap, or the output belongs to another
            source.
    """
    source = open_source(spark, settings.source)
    if settings.output.path is not None:
        try:
            source.check_output(settings.output.path)
        except OSError as error:
            raise OutputError(f"output.path: {settings.output.path} cannot be reached: {error}.") from error
    here = locate_source(spark, settings.source)
    summary.scope = compute_scope(settings, source.identity, here)
    provenance = Provenance(
        summary.run_id,
        summary.started_at,
        here,
        engine.name,
        engine.fingerprint,
        source.version,
        compute_slice_digest(settings),
        source.committed_ms,
    )
    check_owner(settings, here, owner)
    return source, provenance


def read_runs_record(tables: Tables, runs: Runs) -> Record:
    """Return what the `runs` table says about earlier runs, such as the latest run and the source that owns the output.

    If the table cannot be read, raise an error: OutputError if another program, or another version of this program, wrote
    any of the output's tables, and otherwise Spark's error.
    """
    try:
        return runs.read_record()
    except (PySparkException, Py4JJavaError):
        table_setup.check_tables(tables)
        raise


def explain_distrust_of_last_run(record: Record, summary: Summary, provenance: Provenance, source: Source) -> str | None:
    """Return why this run cannot rely on the last run's results, as text for the log; None if this run can rely on them.

    This run can rely on them if the last run had the same source, slice, model and settings, ended with status done, and
    completed all its changes. In addition, source.where must select the same rows each time.
    """
    last = record.last
    if last is None:
        return "there is no earlier run"
    reasons = {
        "source.where may select different rows in each run": source.nondeterministic,
        f"run {last.run_id} ended with the status {last.status}": last.status != "done",
        "the latest run did not complete its changes": not record.settled,
        f"run {last.run_id} read another table or slice, or had other settings of the source": last.scope != summary.scope,
        f"run {last.run_id} had another model, or other values of settings that decide the results": (
            last.fingerprint != provenance.fingerprint
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def has_nothing_to_do(record: Record, tables: Tables, summary: Summary, provenance: Provenance, source: Source) -> bool:
    """Return whether a run would change nothing: settings, model, source and tables are the same as after the last run.

    The result is also False if the source has no version, if a table is missing, or if the Parquet export is outdated. It is
    False, too, if recognition of a document failed for the first time in the last run, so that the document must be retried.

    Args:
        record: summary of the `runs` table before this run.
        summary: summary of this run, whose `scope` must be set.
        provenance: fingerprint (digest of model and settings) and source version of this run.
    """
    last = record.last
    if last is None or provenance.source_version == "unversioned":
        return False
    if explain_distrust_of_last_run(record, summary, provenance, source) is not None:
        return False
    if (last.source_version, last.source_committed) != (provenance.source_version, provenance.source_committed):
        return False
    if crashing_documents.find_failures_to_retry(tables, last) is not None:
        return False
    if not recovery.tables_unchanged_since(tables, record.latest):
        return False
    return tables.is_complete() and (not tables.exported or parquet_export.is_current(tables))


def find_changes(
    settings: Settings,
    tables: Tables,
    source: Source,
    provenance: Provenance,
    record: Record,
    summary: Summary,
    published: DataFrame,
    *,
    full: bool,
    trusted: bool,
) -> Changes:
    """Return what a run must change so that the output fits the source.

    If this run can rely on the last run's results, and the source shows which rows changed since then, compare only
    these rows. Otherwise, and with `full`, compare all rows. The caller must call `Changes.close`, to release cached data.
    Without `full`, raise OutputError if documents in the output have another fingerprint (digest of model and settings)
    than this run, and `incremental.on_fingerprint_change` is `refuse`.

    Args:
        tables: tables of the output; `documents` must not be empty.
        record: summary of the `runs` table before this run.
        summary: summary of this run, whose `scope` must be set.
        published: DataFrame of the rows of `documents`, with which the source is compared.
        full: whether to recompute every document, except those that an unfinished run with --full has already recomputed.
        trusted: whether all changes of earlier runs are known to be complete, and no other program has changed the tables.
            If False, all rows of the source are compared, without the source's change feed.
    """
    how = "reprocess" if full else settings.incremental.on_fingerprint_change
    interrupted = Runs(tables).find_unfinished_full_runs(provenance.fingerprint) if full else frozenset()
    if interrupted:
        interrupted = recovery.select_undisturbed_runs(tables, interrupted)
    policy = changes.Policy(provenance.fingerprint, how, provenance.slice, full=full, interrupted_runs=interrupted)
    if not full:
        reason = explain_distrust_of_last_run(record, summary, provenance, source)
        if reason is None and not trusted:
            reason = "an earlier run did not complete its changes, or another program has changed the tables"
        found = _find_feed_changes(tables, source, record, published, policy) if reason is None else None
        if found is not None:
            return found
        if reason is not None:
            log.info("comparing all rows: %s", reason)
    return changes.compare_all(source, published, policy)


def _find_feed_changes(
    tables: Tables, source: Source, record: Record, published: DataFrame, policy: changes.Policy
) -> Changes | None:
    """Return what a run must change, judging only by the rows of the source that changed since the last run.

    Documents whose recognition failed for the first time in the last run are retried, even if their rows have not changed.
    Return None if there was no earlier run, or if the source does not show which rows changed.

    `published` has the rows of `documents`; `policy` has the rules that decide which documents are recomputed.
    """
    last = record.last
    if last is None or last.source_version is None:
        return None
    feed = change_feed.read_changes_since(tables.spark, source, last.source_version, last.source_committed)
    if feed is None:
        return None
    rejected = tables.read_latest("rejects") if tables.exists("rejects") and not tables.is_empty("rejects") else None
    retry = crashing_documents.find_failures_to_retry(tables, last)
    return changes.compare_feed(source, feed, published, rejected, policy, retry)
