"""Test what the check task counts in tables of either format, and which faults it finds."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from entitymill_dags import check
from entitymill_dags.tables import Output

SLICE = "day = 'mon'"
DAY = datetime(2026, 11, 26, tzinfo=timezone.utc)
RUN = {
    "run_id": "r", "status": "done", "mode": "compare", "model": "m", "started_at": DAY, "ended_at": DAY, "documents": 2,
    "removed": 0, "sentences_per_second": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(("condition", "found"), [(None, 3), (SLICE, 1), ("day = 'tue'", 0)])
@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_mentions_and_refused_rows_are_counted(tmp_path: Path, kind: str, condition: str | None, found: int) -> None:
    """The check must count a slice or all rows, even if a passthrough column of `entities` has a name of `documents`."""
    settings = {"output": {"replace_slice": condition is not None}, "source": {"where": condition}}
    mine = check.compute_slice_digest(SLICE)
    mentions = [{"doc_id": key, "mention_id": key, "run_id": "r", "slice": "x", "label": "PER"} for key in ("a", "b", "b")]
    written = {
        "runs": [{**RUN, "settings": json.dumps(settings)}],
        "documents": [{"doc_id": "a", "entities": 1, "slice": mine}, {"doc_id": "b", "entities": 2, "slice": "other"}],
        "rejects": [{"stage": "source", "code": "null_text", "slice": mine}],
        "entities": mentions,
    }
    for name, rows in written.items():
        held = pa.Table.from_pylist(rows)
        if name == "entities" and kind == "parquet":
            pq.write_to_dataset(held, tmp_path / name, partition_cols=["label"])
        else:
            write_deltalake(tmp_path / name, held)
    report = check.read_report(Output(path=str(tmp_path)), condition)
    assert (report["entities"], report["found"]) == (found, found)
    assert (report["doubled"], report["refused"]) == (1, int(bool(found)))


def test_a_bad_report_is_judged_bad() -> None:
    good = {
        "run_id": "r", "status": "done", "documents": 9, "rejects": {"null_text": 1, "tagger_crashed": 9}, "refused": 1,
        "entities": 5, "doubled": 0, "found": 5,
    }  # fmt: skip
    assert check.find_faults(good, 0.1) == []
    assert check.find_faults({**good, "refused": 0, "documents": 0}, 0.0) == []
    for wrong, says in [
        ({"status": "failed"}, "has the status failed"),
        ({"entities": 6}, "counts 6 entities, but the table entities has 5 rows"),
        ({"doubled": 1}, "1 mentions of the last run are in the table entities more than once"),
        ({"documents": 8}, "1 of 9 rows were rejected"),
    ]:
        [fault] = check.find_faults({**good, **wrong}, 0.1)
        assert says in fault


def test_maintenance_is_no_run_about_anything() -> None:
    assert not check._covers_rows({"settings": None}, None)
    assert not check._covers_rows({"settings": None}, "day = '2026-11-26'")
    assert not check._covers_rows({"settings": '{"erasure": "5f2a"}', "mode": "maintenance"}, None)


def test_the_report_link_is_a_page_of_airflow() -> None:
    key = SimpleNamespace(dag_id="d", run_id="r", task_id="check")
    assert check.ReportLink().get_link(None, ti_key=key) == "/dags/d/runs/r/tasks/check/xcom"  # type: ignore[arg-type]
