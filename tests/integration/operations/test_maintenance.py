"""Test that OPTIMIZE, VACUUM and purge keep all rows, and delete the files that are no longer needed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from entitymill import settings
from entitymill.commands.maintain import main as maintain_tables
from entitymill.errors import SettingsError
from entitymill.run_row import RunRow
from entitymill.spark.private_session import open_private_session
from entitymill.tables import Tables, heartbeats, maintenance
from entitymill.tables.output_tables import build_write_confs
from expected_tables import TEXT_POOL, ExpectedTables, read_tables
from integration.conftest import Job

SOURCE = {f"d{i:02}": text for i, text in enumerate(TEXT_POOL[:12])}
ADOPT = "output.adopt_source=true"
"""Setting for runs into a copied output: the copy's source has another path than the original."""


@pytest.fixture(scope="module")
def prepared(module_job: Job) -> Job:
    module_job.texts(list(SOURCE.items())).run("limits.unit_rows=6")
    module_job.texts(list(SOURCE.items())[1:]).run()
    return module_job


@pytest.fixture
def small_files(prepared: Job, tmp_path: Path) -> Job:
    """Return a copy of the output for each test; a Delta table can be copied, because its log has relative paths."""
    shutil.copytree(prepared.directory, tmp_path, dirs_exist_ok=True)
    return Job(prepared.spark, tmp_path)


def left_behind(job: Job, hours: float) -> Path:
    """Create a file, `hours` old, to which no version of `documents` refers, as a run that died leaves it."""
    file = next((job.output / "documents").glob("part-0*.parquet"))
    stray = Path(shutil.copy(file, file.with_name(f"part-of-{hours:g}-hours.parquet")))
    then = time.time() - hours * 3600
    os.utime(stray, (then, then))
    return stray


def tables_of(job: Job) -> tuple[Tables, settings.Settings]:
    loaded = settings.load(None, job.options(), {})
    return Tables(job.spark, loaded.output), loaded


def ids_on_disk(job: Job) -> set[str]:
    """Return the doc_ids in all data files of `entities` and `documents`, also in files that no version needs."""
    files = [path for name in ("entities", "documents") for path in (job.output / name).rglob("*.parquet")]
    data = [path for path in files if "_delta_log" not in path.parts]
    return {key for path in data for key in pq.ParquetFile(path).read(["doc_id"])["doc_id"].to_pylist()}


def test_a_purged_document_is_gone_from_the_disk_and_a_run_goes_on(small_files: Job, truth: ExpectedTables) -> None:
    before = read_tables(small_files.output)
    assert "d00" in ids_on_disk(small_files)
    tables, loaded = tables_of(small_files)
    (small_files.output / "_units_7").mkdir()  # temporary table of a run that was killed
    with open_private_session(small_files.spark, "UTC", build_write_confs(loaded.output)) as own:
        maintenance.purge(Tables(own, loaded.output), loaded)
    assert "d00" not in ids_on_disk(small_files)
    maintenance.optimize(tables, sort=True)

    assert read_tables(small_files.output) == before
    assert not (small_files.output / "_units_7").exists()
    changed = {**SOURCE, "d01": TEXT_POOL[4]}
    assert small_files.texts(list(changed.items())).run(ADOPT).documents == 2
    truth.check(small_files.output, changed)


@pytest.mark.deep
def test_optimize_and_vacuum_run_beside_a_job(small_files: Job, truth: ExpectedTables) -> None:
    """OPTIMIZE and VACUUM, repeated in another session while a run changes the same tables, must do no harm."""
    loaded = settings.load(None, small_files.options(), {})
    with pytest.raises(SettingsError, match="--retain-hours"):
        maintenance.vacuum(Tables(small_files.spark, loaded.output), loaded, 1)
    stopped, failures, rounds = threading.Event(), [], []

    def maintain() -> None:
        tables = Tables(small_files.spark.newSession(), loaded.output)
        while not stopped.wait(0.2):
            try:
                maintenance.optimize(tables)
                younger, older = left_behind(small_files, 23), left_behind(small_files, 25)
                maintenance.vacuum(tables, loaded, 24)
                rounds.append((younger.exists(), older.exists()))
            except Exception as error:  # noqa: BLE001  # the test fails if there is an error
                failures.append(error)
                return

    young = set((small_files.output / "documents").glob("part-0*.parquet"))
    beside = threading.Thread(target=maintain)
    beside.start()
    changed = {key: TEXT_POOL[(i + 5) % len(SOURCE)] for i, key in enumerate(SOURCE)}
    try:
        small_files.texts(list(changed.items())).run(ADOPT, "limits.unit_rows=3")
    finally:
        stopped.set()
        beside.join()

    assert failures == []
    assert len(rounds) > 1
    assert set(rounds) == {(True, False)}
    assert all(file.exists() for file in young), "a version of today needs them"
    truth.check(small_files.output, changed)


def test_where_the_storage_mixes_up_writers_maintenance_waits_for_a_job(
    small_files: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If storage may lose concurrent commits, as S3 may, maintenance must wait for a run; tests/cluster tests S3 itself."""
    monkeypatch.setattr(heartbeats, "commits_may_collide", lambda *_: True)
    job = heartbeats.Heartbeat(tables_of(small_files)[0], "job", 120)
    job.beat(RunRow("job"))
    options = [item for option in small_files.options("limits.wait_seconds=0") for item in ("--set", option)]
    for task in ("optimize", "vacuum"):
        assert maintain_tables([*options, task]) == 1
        assert "run job (on an unknown host) is writing" in " ".join(capfd.readouterr().err.split())
    job.stop()
    assert maintain_tables([*options, "optimize"]) == 0
    assert not (small_files.output / "_heartbeats").exists()


def count_files(job: Job, name: str) -> int:
    found = tables_of(job)[0].detail(name)
    assert found is not None
    return int(found["numFiles"])


def test_the_command_says_what_it_did_and_what_is_missing(small_files: Job, capfd: pytest.CaptureFixture[str]) -> None:
    before = read_tables(small_files.output)
    assert count_files(small_files, "documents") > 1
    options = [item for option in small_files.options() for item in ("--set", option)]
    log = ["--set", f"log={small_files.directory}/run.log"]
    assert maintain_tables([*options, *log, "optimize"]) == 0
    assert "small files compacted" in capfd.readouterr().out
    files = {name: count_files(small_files, name) for name in ("documents", "entities")}
    assert files == {"documents": 1, "entities": small_files.read("entities").select("label").distinct().count()}
    assert read_tables(small_files.output) == before
    assert maintain_tables([*options, *log, "--set", "output.path=/nowhere/at/all", "optimize"]) == 1
    assert "no entity tables at" in capfd.readouterr().err
