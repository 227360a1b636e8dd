"""Test that `entitymill report` and `runs` start a JVM only if needed, and that the page is the same without one."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
import pytest

from entitymill import cli, settings
from entitymill_reports.table_reader import open_local_reader
from expected_tables import TEXT_POOL
from integration.conftest import Job

from .page_reading import read_both_ways

TIMES = [dt.datetime(2026, 3, day, 23, 30, tzinfo=dt.timezone.utc) for day in range(1, 9)]
COLUMNS = {
    "date": pa.array([time.date() for time in TIMES], pa.date32()),
    "time": pa.array(TIMES, pa.timestamp("us", "UTC")),
    "wall": pa.array([time.replace(tzinfo=None) for time in TIMES], pa.timestamp("us")),
    "Said_On": pa.array([*(f"{time:%Y-%m-%d} at night" for time in TIMES[:6]), "2026-02-30", "never"], pa.string()),
}
OPTIONS = ("output.format=parquet", f"source.passthrough=[{', '.join(COLUMNS)}]")


@pytest.fixture(scope="module")
def dated(module_job: Job) -> Job:
    """Run the job twice, into a Parquet output, on documents with date columns of every type; one document changes."""
    for texts in (TEXT_POOL[:8], [*TEXT_POOL[:7], "Angela Merkel met John Smith in Paris."]):
        module_job.texts(pa.table({"id": [f"d{at}" for at in range(8)], "text": texts, **COLUMNS})).run(
            *OPTIONS, "limits.unit_rows=3"
        )
    return module_job


def load(job: Job, *overrides: str) -> settings.Settings:
    return settings.load(None, job.options(*OPTIONS, "report.show_text=true", *overrides), {})


@pytest.mark.parametrize("name", ["date", "time", "wall", "Said_On"])
def test_days_of_every_kind_are_the_same_with_and_without_spark(dated: Job, name: str) -> None:
    found = read_both_ways(dated, load(dated, f"report.date_column={name}"))
    assert found.days is not None and found.days.counts
    assert found.shown is not None and found.shown.sentences
    assert {day for day in found.days.counts if not dt.date(2026, 3, 1) <= day <= dt.date(2026, 3, 8)} == set()


@pytest.mark.parametrize(
    ("overrides", "local"),
    [
        (["source.time_zone=Asia/Tokyo"], False),  # only Spark converts times to days of this zone
        (["source.where=id <> 'x'"], False),  # only Spark evaluates the condition, for excerpts
        (["source.format=table", "source.path=main.texts"], False),
        (["output.format=delta", "output.path=s3a://lake/out"], False),
        (["output.path=/nowhere"], False),
        (["log=stderr"], True),
    ],
)
def test_spark_is_started_only_where_it_is_needed(dated: Job, overrides: list[str], *, local: bool) -> None:
    assert (open_local_reader(load(dated, "report.date_column=time", *overrides)) is not None) == local


def test_the_commands_start_no_jvm(dated: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a JVM is started")

    for function in ("find_session", "_start_session"):  # this process has a session
        monkeypatch.setattr(f"entitymill.spark.session.{function}", refuse)
    page = dated.directory / "page.html"
    chosen = dated.options(*OPTIONS, "report.show_text=true", "report.date_column=date", "log=stderr")
    options = [item for option in chosen for item in ("--set", option)]
    assert cli.main(["report", *options, "--to", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    assert "Merkel" in page.read_text(encoding="utf8")
    assert cli.main(["runs", *options, "--json"]) == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["done", "done"]
