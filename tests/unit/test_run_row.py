"""Test the value that describes a run wherever a run is described."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from entitymill import run_row, schemas
from entitymill.run_row import RunRow

START = datetime(2026, 11, 20, 3, 0, 0, 123456, tzinfo=timezone.utc)
FULL = RunRow("r1", START, status="running", entities_by_label={"PER": 3}, documents=7, seconds={"total": 1.5}, settled=True)


def test_a_run_has_the_columns_of_the_table() -> None:
    assert list(run_row.COLUMN_NAMES) == schemas.RUNS.names
    assert set(run_row.PROGRESS) <= set(run_row.COLUMN_NAMES)


def test_a_run_survives_its_heartbeat_file() -> None:
    assert RunRow.from_values(json.loads(FULL.to_json())) == FULL


@pytest.mark.parametrize(
    "time",
    [
        START,
        START.astimezone(timezone(timedelta(hours=5))),
        START.astimezone().replace(tzinfo=None),  # as Spark returns times
        START.isoformat(),
        int(START.timestamp()) * 1_000_000 + START.microsecond,
    ],
    ids=["UTC", "another zone", "local", "text", "microseconds"],
)
def test_times_are_in_utc(time: object) -> None:
    found = RunRow.from_values({"run_id": "r1", "started_at": time}).started_at
    assert (found, found.utcoffset()) == (START, timedelta(0))


def test_nulls_and_columns_of_other_versions_do_not_matter() -> None:
    values = {"run_id": "r1", "started_at": None, "documents": None, "seconds": None, "mode": None, "column_of_2031": 1}
    assert RunRow.from_values(values) == RunRow("r1")


def test_maps_may_be_pairs() -> None:
    """That is how pyarrow returns them."""
    values = {"run_id": "r1", "entities_by_label": [("PER", 3)], "output_versions": {"entities": 2}}
    found = RunRow.from_values(values)
    assert (found.entities_by_label, found.output_versions) == ({"PER": 3}, {"entities": 2})


@pytest.mark.parametrize("process", [None, "", "no JSON", "[1]", '{"pid": 1}'])
def test_a_host_that_was_not_recorded_is_unknown(process: str | None) -> None:
    assert RunRow("r1", process=process).host == "an unknown host"
    assert RunRow("r1", process='{"host": "node7", "pid": 1}').host == "node7"


@pytest.mark.parametrize("process", [None, "", "no JSON", "[1]", '{"pid": 1}', '{"lease_seconds": 1' + 400 * "0" + "}"])
def test_a_lease_that_was_not_recorded_is_zero(process: str | None) -> None:
    assert RunRow("r1", process=process).lease_seconds == 0
    assert RunRow("r1", process='{"pid": 1, "lease_seconds": 120}').lease_seconds == 120
