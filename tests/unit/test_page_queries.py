from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from entitymill import settings
from entitymill.errors import SettingsError
from entitymill_reports import page_queries
from entitymill_reports.table_reader import LocalReader

START = datetime(2026, 11, 20, 3, tzinfo=timezone.utc)


def reader_of(
    directory: Path, runs: list[tuple[str, str | None]], labels: list[str], days: pa.Array | None = None
) -> LocalReader:
    """Write tables, and return a reader of them.

    runs: run id and mode of each run, oldest first; each started an hour after the one before.
    labels: label of each mention, all of which the first run found.
    days: values of the passthrough column `day` of each mention; None for a table without this column.
    """
    started = [START + timedelta(hours=at) for at in range(len(runs))]
    ids, modes = ([run[at] for run in runs] for at in (0, 1))
    counts = pa.array([10 for _ in labels], pa.int32())
    tables = {
        "runs": {
            "run_id": ids,
            "started_at": pa.array(started, pa.timestamp("us", "UTC")),
            "status": ["done" for _ in runs],
            "mode": pa.array(modes, pa.string()),
            "settings": ["{}" for _ in runs],
            "sentences": pa.array([0 if mode == "none" else 5000 for mode in modes], pa.int64()),
        },
        "entities": {
            "doc_id": [f"d{at}" for at in range(len(labels))],
            "run_id": [ids[0] for _ in labels],
            "label": labels,
            "confidence": pa.array([0.5 for _ in labels], pa.float32()),
            "sentence_id": counts,
            "sentence_begin": counts,
            "sentence_end": counts,
            **({} if days is None else {"day": days}),
        },
        "documents": {
            "doc_id": ["d0"],
            "status": ["done"],
            **{name: pa.array([10], pa.int32()) for name in ("tokens", "sentences", "split_sentences")},
        },
    }
    for name, columns in tables.items():
        write_deltalake(str(directory / name), pa.table(columns))
    chosen = settings.load(None, ["source.path=texts", f"output.path={directory}"], {})
    return LocalReader(chosen, {name: DeltaTable(directory / name) for name in tables}, QueryBuilder())


def test_idle_runs_take_no_place_of_others(tmp_path: Path) -> None:
    idle: list[tuple[str, str | None]] = [(f"idle{at}", "none") for at in range(page_queries.MAX_RUNS)]
    reader = reader_of(tmp_path, [("old", "first"), ("purge", "maintenance"), *idle, ("new", "feed"), *idle], ["PER"])
    chosen = settings.load(None, ["source.path=texts", f"output.path={tmp_path}"], {})

    run, before = page_queries.read_runs(reader)
    found = page_queries.read_page_content(reader, chosen)
    assert run is not None
    assert (run.run_id, [earlier.run_id for earlier in before]) == ("new", ["old"])
    assert [one.run_id for one in found.runs] == ["new", "old"]
    assert found.last_idle == START + timedelta(hours=2 * len(idle) + 2)
    assert page_queries.read_page_content(reader, chosen, "old").run == before[0]
    with pytest.raises(SettingsError, match=r"--run: idle0 is not among the latest 40 runs of .* that had anything to do"):
        page_queries.read_page_content(reader, chosen, "idle0")


def test_an_output_without_idle_runs(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, [("of an older version", None)], ["PER"])
    chosen = settings.load(None, ["source.path=texts", f"output.path={tmp_path}"], {})
    found = page_queries.read_page_content(reader, chosen)
    assert found.run is not None
    assert found.last_idle is None


def test_of_too_many_groups_the_largest_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"L{at:02}" for at in range(60) for _ in range(at + 1)]
    reader = reader_of(tmp_path, [("first", "first")], labels)
    assert sum(row["mentions"] for row in page_queries._count_mentions(reader, None)) == len(labels)
    for name in ("MAX_LABELS", "CONFIDENCE_BINS", "MAX_RUNS"):
        monkeypatch.setattr(page_queries, name, 1)
    assert [row["mentions"] for row in page_queries._count_mentions(reader, None)] == [60, 59]


@pytest.mark.parametrize("kind", ["date", "text"])
def test_days_beyond_what_nanoseconds_can_count_are_no_days(tmp_path: Path, kind: str) -> None:
    """Such as 9999-12-31, which often stands for "never"."""
    texts = ["9999-12-31", "0001-01-01", "2026-11-30", "2024-01-02", None]
    days = pa.array([text and date.fromisoformat(text) for text in texts], pa.date32())
    if kind == "text":
        days = pa.array([*texts[:4], "0000-05-05"])
    reader = reader_of(tmp_path, [("first", "first")], ["PER"] * 5, days)
    chosen = settings.load(
        None, ["source.path=texts", f"output.path={tmp_path}", "source.passthrough=day", "report.date_column=day"], {}
    )
    found = page_queries.read_page_content(reader, chosen).days
    assert found is not None
    assert (found.step, sum(found.counts[day]["PER"] for day in found.counts), found.without) == ("month", 2, 3)


@pytest.mark.parametrize(
    ("metrics", "rows"),
    [
        ({"numOutputRows": "4", "numOutputBytes": "5417", "numFiles": "1"}, 4),
        # Metrics of Delta 3.3 for an overwrite that copies some rows, and for a MERGE.
        ({"numOutputRows": "6", "numCopiedRows": "3", "numDeletedRows": "1", "numRemovedBytes": "0"}, 3),
        ({"numOutputRows": "9", "numTargetRowsInserted": "2", "numTargetRowsUpdated": "1", "numTargetRowsCopied": "6"}, 3),
        # For an UPDATE and for a DELETE that copy the other rows of the files.
        ({"numUpdatedRows": "1", "numCopiedRows": "9"}, 1),
        ({"numDeletedRows": "1", "numCopiedRows": "9"}, 0),
        ({}, 0),
    ],
)
def test_rows_that_were_only_copied_do_not_count(metrics: dict[str, str], rows: int) -> None:
    assert page_queries._count_written_rows(metrics) == rows
