"""Record the tables' versions at the end of a run, and find out whether another program has changed the tables since.

For example, an operator may have used RESTORE or DELETE. After such a change, a run checks and compares all documents.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress

from pyspark.sql import Row
from pyspark.sql import functions as F

from entitymill.source.change_feed import NON_DATA_OPERATIONS
from entitymill.tables.numbered_commits import Commits
from entitymill.tables.output_tables import DOCUMENT_TABLES, Tables

log = logging.getLogger(__name__)
_LATER_COMMITS = 10
"""Number of commits, for example by OPTIMIZE, that may be added while a table's history is read."""


def read_versions(tables: Tables, names: Sequence[str]) -> dict[str, int]:
    """Return a dict table -> number of its current version."""
    return {name: tables.version(name) for name in names}


def read_own_versions(tables: Tables, before: dict[str, int], commits: Commits) -> dict[str, int]:
    """Return a dict table -> number of its current version, or an empty dict if another program may have changed rows.

    Args:
        tables: tables of the output.
        before: versions of the tables before this run's first commit to them.
        commits: object that made this run's commits.
    """
    present = read_versions(tables, list(before))
    for name, version in present.items():
        # In most runs the numbers are equal, and the history need not be read, which takes a Spark job.
        made = commits.counts[name]
        if version != before[name] + made and not _is_only_changed_by(tables, name, before[name], version, commits.run_id):
            return {}
    return present


def tables_unchanged_since(tables: Tables, latest: Row | None) -> bool:
    """Return whether the tables have the same rows as after run `latest`; OPTIMIZE and VACUUM do not change rows.

    False if `latest` is None or recorded no versions, or if a table has been removed or created since.
    """
    recorded = None if latest is None else latest["output_versions"]
    if not recorded or any(tables.exists(name) for name in DOCUMENT_TABLES if name not in recorded):
        return False
    for name, before in recorded.items():
        if not tables.exists(name):
            return False
        present = tables.version(name)
        if present != before and not _is_only_changed_by(tables, name, before, present, None):
            return False
    return True


def _is_only_changed_by(tables: Tables, name: str, before: int, present: int, run_id: str | None) -> bool:
    """Return whether each commit after version `before` was made by a certain run, or changed no rows (such as OPTIMIZE).

    Args:
        tables: tables of the output.
        name: name of the table.
        before, present: numbers of an earlier version and of the current one.
        run_id: id of the run; None to accept no commit that changed rows.
    """
    since = tables.history(name, max(present - before, 0) + _LATER_COMMITS)
    since = since.where((F.col("version") > before) & (F.col("version") <= present))
    rows = since.select("operation", "userMetadata").collect()
    others = [
        row["operation"]
        for row in rows
        if row["operation"] not in NON_DATA_OPERATIONS and (run_id is None or _read_run_id(row["userMetadata"]) != run_id)
    ]
    if present < before:
        reason = f"its version {present} is older than version {before}, which a run recorded"
    elif others:
        reason = f"operations: {', '.join(others)}"
    elif len(rows) != present - before:
        reason = f"its history lacks commits since version {before}"
    else:
        return True
    log.warning(
        "another program may have changed rows of %s (%s), so all documents have to be checked and compared",
        tables.address(name),
        reason,
    )
    return False


def _read_run_id(metadata: str | None) -> object:
    """Return the run id in a commit's userMetadata; None if another program made the commit."""
    with suppress(ValueError, AttributeError):
        return json.loads(metadata or "").get("entitymill")
    return None
