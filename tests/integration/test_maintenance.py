"""OPTIMIZE, VACUUM and purge: the same rows, in fewer files, and nothing else on the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from entitymill import settings
from entitymill.commands.maintain import main as maintain_tables
from entitymill.errors import SettingsError
from entitymill.tables import Tables, commit_lock, maintenance
from entitymill.tables.lease import claim_of
from truth import POOL, Truth, held

from .conftest import Job

SOURCE = {f"d{i:02}": text for i, text in enumerate(POOL[:12])}


@pytest.fixture
def small_files(job: Job) -> Job:
    job.texts(list(SOURCE.items())).run("limits.unit_rows=2")
    job.texts(list(SOURCE.items())[1:]).run()
    return job


def tables_of(job: Job) -> tuple[Tables, settings.Settings]:
    loaded = settings.load(None, job.options(), {})
    return Tables(job.spark, loaded.output), loaded


def ids_on_disk(job: Job) -> set[str]:
    """Of every data file, also those no version needs."""
    files = [path for name in ("entities", "documents") for path in (job.output / name).rglob("*.parquet")]
    data = [path for path in files if "_delta_log" not in path.parts]
    return {key for path in data for key in pq.ParquetFile(path).read(["doc_id"])["doc_id"].to_pylist()}


def test_optimize_joins_files_and_changes_no_row(small_files: Job) -> None:
    before = held(small_files.output)
    done = {one.name: one for one in maintenance.optimize(tables_of(small_files)[0])}
    assert done["documents"].after[0] == 1 < done["documents"].before[0]
    assert done["entities"].after[0] == small_files.read("entities").select("label").distinct().count()
    assert held(small_files.output) == before


def test_a_purged_document_is_gone_from_the_disk(small_files: Job) -> None:
    before = held(small_files.output)
    assert "d00" in ids_on_disk(small_files)
    tables, loaded = tables_of(small_files)
    (small_files.output / "_staged_documents").mkdir()  # as a rebuild that was killed at once leaves it
    maintenance.purge(tables, loaded)

    assert "d00" not in ids_on_disk(small_files)
    assert held(small_files.output) == before
    assert not (small_files.output / "_staged_documents").exists()


def test_vacuum_keeps_a_day_at_least(small_files: Job) -> None:
    tables, _ = tables_of(small_files)
    with pytest.raises(SettingsError, match="--retain-hours"):
        maintenance.vacuum(tables, 1)
    maintenance.vacuum(tables, 24)
    assert "d00" in ids_on_disk(small_files)


def test_a_run_after_each_kind_of_maintenance_goes_on(small_files: Job, truth: Truth) -> None:
    tables, loaded = tables_of(small_files)
    for text, maintain in (
        (POOL[3], lambda: maintenance.optimize(tables, sort=True)),
        (POOL[4], lambda: maintenance.purge(tables, loaded)),
    ):
        maintain()
        changed = {**SOURCE, "d01": text}
        small_files.texts(list(changed.items())).run()
        truth.check(small_files.output, changed)


def test_optimize_and_vacuum_run_beside_a_job(small_files: Job, truth: Truth) -> None:
    """Again and again, in a session of their own, while a job of several units changes the same tables."""
    loaded = settings.load(None, small_files.options(), {})
    stopped, failures, rounds = threading.Event(), [], []

    def maintain() -> None:
        tables = Tables(small_files.spark.newSession(), loaded.output)
        while not stopped.wait(1):
            try:
                rounds.append(maintenance.optimize(tables))
                maintenance.vacuum(tables, 24)
            except Exception as error:  # noqa: BLE001  # for the test to raise
                failures.append(error)
                return

    beside = threading.Thread(target=maintain)
    beside.start()
    changed = {key: POOL[(i + 5) % len(SOURCE)] for i, key in enumerate(SOURCE)}
    try:
        small_files.texts(list(changed.items())).run("limits.unit_rows=1")
    finally:
        stopped.set()
        beside.join()

    assert failures == []
    assert len(rounds) > 1
    truth.check(small_files.output, changed)


def test_where_the_storage_mixes_up_writers_maintenance_waits_for_a_job(
    small_files: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on S3, which tests/cluster has; here the claims lie on a disk."""
    monkeypatch.setattr(commit_lock, "needed", lambda *_: True)
    tables, loaded = tables_of(small_files)
    job = claim_of(tables, loaded.limits, "job")
    assert job is not None
    assert job.take()
    options = [item for option in small_files.options("limits.wait_seconds=1") for item in ("--set", option)]
    for task in ("optimize", "vacuum"):
        assert maintain_tables([*options, task]) == 1
        assert "another run that just began writes" in capfd.readouterr().err
    job.release()
    assert maintain_tables([*options, "optimize"]) == 0
    assert list((small_files.output / "_claims").iterdir()) == []


def test_the_command_says_what_it_did_and_what_is_missing(
    small_files: Job, capfd: pytest.CaptureFixture[str], main: Callable[..., tuple[int, str]]
) -> None:
    options = [item for option in small_files.options() for item in ("--set", option)]
    log = ["--set", f"log={small_files.directory}/run.log"]
    assert maintain_tables([*options, *log, "optimize"]) == 0
    assert "small files joined" in capfd.readouterr().out
    assert maintain_tables([*options, *log, "--set", "output.path=/nowhere/at/all", "optimize"]) == 1
    assert "no entity tables at" in capfd.readouterr().err
