"""The dataclass `RunRow` describes one run of the job: a row of the `runs` table, for code with and without Spark."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Self

UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""Start of a run whose start is not known."""
PROGRESS = (
    "stage", "documents", "planned", "removed", "units", "units_done", "sentences", "rejects", "sentences_per_second",
)  # fmt: skip
"""Columns that show a run's progress. While a run is active, its heartbeat file, which it rewrites at short intervals, has
newer values than its row in `runs`."""


@dataclass(frozen=True)
class RunRow:
    """A row of the `runs` table. The fields are the columns, which `schemas.RUNS` describes, in the same order.

    Times are in UTC. A missing count or measurement is 0, a missing map is empty, a missing start is UNKNOWN_TIME.
    Any other missing value is None.
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

        Unknown columns are ignored. Times are datetimes, texts in ISO format, or microseconds since 1970. Datetimes without
        a time zone are in this machine's local time. Maps may be lists of pairs. `other` has values of a subclass's fields.
        """
        known = {name: values.get(name) for name in NAMES}
        return cls(**{name: _convert(name, value) for name, value in known.items() if value is not None}, **other)

    def to_json(self) -> str:
        """Return the row as a JSON object, from which `from_values` builds an equal row."""
        # Not `dataclasses.asdict`: another thread may add a key to a dict that is being copied.
        return json.dumps(vars(self), default=str)

    @property
    def host(self) -> str:
        """The host of the run's driver; "an unknown host" if it was not recorded."""
        try:
            return str(json.loads(self.process or "")["host"])
        except (ValueError, KeyError, TypeError):
            return "an unknown host"


NAMES = tuple(field.name for field in dataclasses.fields(RunRow))
"""Names of the columns of `runs`."""
TIMES = ("started_at", "ended_at", "until")
"""Names of the columns that are times."""


def _convert(name: str, value: Any) -> Any:
    """Return the value of a column with times in UTC, and with a dict instead of a list of pairs; `value` is not None."""
    if name in TIMES:
        if isinstance(value, int):
            return UNKNOWN_TIME + timedelta(microseconds=value)
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        return time.astimezone(timezone.utc)
    return dict(value) if isinstance(value, list) else value
