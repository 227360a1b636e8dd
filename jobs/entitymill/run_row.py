"""The dataclass `RunRow`: one row of the `runs` table. Each row describes one run. This module needs no Spark."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Self

UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""The value of `started_at` for a run whose start is not known."""
STAGES = ("preparation", "waiting", "source", "recognition", "writing")
"""The stages of a run, in order. `seconds` has their wall-clock times; that of `waiting` only if the run waited for another
run."""
PROGRESS = (
    "stage", "documents", "planned", "removed", "units", "units_done", "sentences", "rejects", "sentences_per_second",
)  # fmt: skip
"""Columns that show a run's progress. An active run often rewrites its row in its heartbeat file (see `tables.heartbeats`),
so these columns have newer values in the heartbeat file than in the table `runs`."""


@dataclass(frozen=True)
class RunRow:
    """A row of the `runs` table. The fields are the columns, which `schemas.RUNS` describes, in the same order.

    Times are in UTC. A missing count or measurement is 0, a missing map is empty, a missing start is UNKNOWN_TIME.
    Any other missing value is None.

    mode: how the run found the documents to process, such as "full" or "feed".
    scope: digest of the settings that select the source's rows.
    fingerprint: digest of everything, except the texts, that decides the run's results: models, precision and settings.
    planned: number of documents to process, counted before the first unit.
    units, units_done: number of units (documents that are published together), and number of units published so far.
    epoch: number of a run that may write the tables, greater than the numbers of all earlier runs; None for other runs.
    process: host and process id of the run's driver, and the run's limits.lease_seconds, as JSON.
    until: time when another run may take over the output, unless this run writes a heartbeat before that time.
    settled: whether all changes of the run are known to be complete; otherwise the next run checks the tables.
    slice: digest of `source.where` if the run replaced a slice (setting `output.replace_slice`): only what earlier runs with
        the same `source.where` wrote.
    source_committed: time when the version `source_version` of a Delta source was committed, in milliseconds since 1970.
    """

    run_id: str
    started_at: datetime = UNKNOWN_TIME
    ended_at: datetime | None = None
    status: str | None = None
    mode: str | None = None
    settings: str | None = None
    source: str | None = None
    source_version: str | None = None
    scope: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    entities_by_label: Mapping[str, int] = field(default_factory=dict)
    documents: int = 0
    removed: int = 0
    units: int = 0
    planned: int = 0
    units_done: int = 0
    stage: str | None = None
    error: str | None = None
    exit_code: int | None = None
    application_id: str | None = None
    log: str | None = None
    sentences: int = 0
    rejects: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    sentences_per_second: float = 0.0
    epoch: int | None = None
    process: str | None = None
    until: datetime | None = None
    settled: bool | None = None
    slice: str | None = None
    source_committed: int | None = None
    output_versions: Mapping[str, int] = field(default_factory=dict)
    chars: int = 0
    cores: int = 0
    core_hours: float = 0.0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **other: Any) -> Self:
        """Build a row from a dict of columns and their values, as read by Spark, by deltalake or from JSON.

        Unknown columns are ignored; a column that is missing or None gets its default. Each time may be a datetime, a text
        in ISO format, or microseconds since 1970. A datetime or text without a time zone counts as this machine's local
        time. A map may also be a list of (key, value) pairs.
        `other`: values for the fields that a subclass of RunRow adds.
        """
        known = {name: values.get(name) for name in COLUMN_NAMES}
        return cls(**{name: _convert(name, value) for name, value in known.items() if value is not None}, **other)

    def to_json(self) -> str:
        """Return the row as the text of a JSON object. From the parsed object, `from_values` builds an equal row."""
        # Not `dataclasses.asdict`: another thread may add a key to a dict that is being copied.
        return json.dumps(vars(self), default=str)

    @property
    def host(self) -> str:
        """The host of the run's driver; "an unknown host" if it was not recorded."""
        try:
            return str(json.loads(self.process or "")["host"])
        except (ValueError, KeyError, TypeError):
            return "an unknown host"

    @property
    def lease_seconds(self) -> float:
        """The run's setting `limits.lease_seconds`; 0 if it was not recorded."""
        try:
            return float(json.loads(self.process or "")["lease_seconds"])
        except (ValueError, KeyError, TypeError, OverflowError):
            return 0.0


COLUMN_NAMES = tuple(field.name for field in dataclasses.fields(RunRow))
"""Names of the columns of `runs`."""
TIMES = ("started_at", "ended_at", "until")
"""Names of the columns that are times."""


def _convert(name: str, value: Any) -> Any:
    """Convert a value of the column `name` to the type in RunRow: a time to a datetime in UTC, a list of pairs to a dict.

    Other values are returned unchanged. `value` must not be None. `from_values` lists the forms that a time may have.
    """
    if name in TIMES:
        if isinstance(value, int):
            return UNKNOWN_TIME + timedelta(microseconds=value)
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(timezone.utc)
    return dict(value) if isinstance(value, list) else value
