"""What a run left that died between a unit's commits: its last commit is taken back, as if it had died before it.

Each commit of a unit names epoch and unit in Delta's own record (userMetadata). A table whose latest unit is later than
that of `documents` goes back to the version before that unit, which copies nothing.
https://docs.delta.io/latest/delta-utility.html#restore-a-delta-table-to-an-earlier-state
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Row

from entitymill.tables.commits import Commits
from entitymill.tables.layout import OF_UNITS, Tables

log = logging.getLogger(__name__)


class Mark(NamedTuple):
    """The latest commit of a unit to a table; of two, the greater is the later one."""

    epoch: int
    unit: int
    version: int


def settle(tables: Tables, commits: Commits, last: Row | None, done: int | None = None) -> bool:
    """Take back what the last run published half, if it did.

    Args:
        tables: of the output, or those that wait to be swapped in.
        commits: of this run; no older run can commit any more.
        last: run before this one; none: nobody knows.
        done: epoch of the latest run that came to its end, and so left nothing half.

    Returns:
        Whether the tables can be trusted; otherwise everything has to be made anew.
    """
    if (last is not None and last["status"] == "done") or not tables.exists("documents"):
        return True
    told = _latest(tables, "documents")
    for name in OF_UNITS[:-1]:
        if not (tables.is_delta(name) and tables.exists(name)):
            continue
        mark = _latest(tables, name)
        if mark is None or mark.epoch <= (done or 0) or (told is not None and mark[:2] <= told[:2]):
            continue
        if told is None and not _remembers_all(tables, "documents"):
            log.warning("what documents told of %s is not in Delta's log any more: all documents are done again", name)
            return False
        log.warning("%s: unit %d of epoch %d was published half, and is taken back", name, mark.unit, mark.epoch)
        try:
            commits.change(name, partial(tables.restore, name, mark.version - 1))
        except (PySparkException, Py4JJavaError):
            # Its files are gone: a VACUUM of somebody else's came between.
            log.exception("%s cannot be taken back: all documents are done again", name)
            return False
    return True


def _remembers_all(tables: Tables, name: str) -> bool:
    """Whether Delta's log still has the table's first commit: it forgets after 30 days."""
    return bool(tables.history(name).where("version = 0").take(1))


def _latest(tables: Tables, name: str) -> Mark | None:
    rows = tables.history(name).collect()
    for row in sorted(rows, key=lambda row: -row["version"]):
        if row["operation"] == "RESTORE":
            # What came before it and was taken back; by a run that died before it published anything itself.
            return None
        if row["operation"] == "OPTIMIZE":
            continue  # joined files of itself after a unit's commit, under the same name
        try:
            told = json.loads(row["userMetadata"] or "")
            return Mark(int(told["epoch"]), int(told["unit"]), int(row["version"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None
