"""Find what changed since the last run: from the source's change feed if possible, otherwise by comparing all rows."""

from __future__ import annotations

import logging

from pyspark.sql import DataFrame

from entitymill.run import crashing_documents, guards
from entitymill.run.summary import Summary
from entitymill.settings import Settings
from entitymill.source import change_feed, changes
from entitymill.source.changes import Changes
from entitymill.source.reader import Source
from entitymill.tables import Provenance, Tables
from entitymill.tables.runs import Record, Runs

log = logging.getLogger(__name__)


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
    continues_full: bool,
    trusted: bool,
) -> Changes:
    """Return the changes between the source and the `documents` table.

    Args:
        settings: settings of the run.
        tables: tables of the output; `documents` must not be empty.
        source: the opened source.
        provenance: values that the run writes into each row.
        record: summary of `runs` before this run.
        summary: summary of the run.
        published: frame of the rows of `documents`, with which the source is compared.
        full: whether to recompute every document.
        continues_full: whether documents count as recomputed if an unfinished run with --full has recomputed them.
        trusted: whether all changes of earlier runs are known to be complete, and no other program has changed the tables;
            only then is the change feed used.
    """
    how = "reprocess" if full else settings.incremental.on_fingerprint_change
    interrupted = Runs(tables).find_unfinished_full_runs(provenance.fingerprint) if continues_full else frozenset()
    policy = changes.Policy(provenance.fingerprint, how, provenance.slice, full=full, interrupted_runs=interrupted)
    if not full:
        reason = guards.explain_other_job(record, summary, provenance, source)
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
    """Return the changes since the last run, from the source's change feed; None if there is no last run or no feed."""
    last = record.last
    if last is None:
        return None
    feed = change_feed.read_changes_since(tables.spark, source, last.source_version, last.source_committed)
    if feed is None:
        return None
    rejected = None if tables.is_empty("rejects") else tables.read_latest("rejects")
    retry = crashing_documents.find_first_failures(tables, last)
    return changes.compare_feed(source, feed, published, rejected, policy, retry)
