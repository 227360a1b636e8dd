"""Outputs whose `entities` is plain Parquet: swapped in as a whole by every run, and never half."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from entitymill import settings
from entitymill.errors import OutputError
from entitymill.tables import Tables, staging, table_rows, table_setup
from entitymill.tables.privacy import erase
from truth import MENTION, POOL, Truth

from .conftest import Job
from .delta_source import BASE

OPTIONS = ("output.format=parquet", "output.adopt_source=true")
"""A copy's source is another file."""
SOURCE = {**BASE, "erased": POOL[7]}
ONLY_THERE = b"Federal Election Commission"


@pytest.fixture(scope="module")
def nobody(module_job: Job) -> Job:
    """Of a run that found no mention at all."""
    module_job.texts([("none", "Nobody came.")]).run(*OPTIONS)
    return module_job


@pytest.fixture(scope="module")
def prepared(nobody: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = copied(nobody, tmp_path_factory.mktemp("prepared"))
    job.texts(list(SOURCE.items())).run(*OPTIONS)
    return job


@pytest.fixture
def filled(prepared: Job, tmp_path: Path) -> Job:
    return copied(prepared, tmp_path)


def copied(job: Job, directory: Path) -> Job:
    """A Delta log names its files relative to the table, so an output may be copied."""
    shutil.copytree(job.directory, directory, dirs_exist_ok=True)
    return Job(job.spark, directory)


def loaded(job: Job) -> settings.Settings:
    return settings.load(None, job.options(*OPTIONS), {})


def labels(job: Job) -> set[str]:
    """Of which `entities` has directories."""
    return {path.name.removeprefix("label=") for path in (job.output / "entities").glob("label=*")}


def check(job: Job, truth: Truth, source: dict[str, str], *others: str) -> None:
    """`entities` has these rows, by label, and beside the tables and others nothing is left."""
    truth.check(job.output, source)
    assert labels(job) == {row[2 + MENTION.index("label")] for row in truth.entities(source)}
    assert {path.name for path in job.output.iterdir()} == {"documents", "entities", "rejects", "runs", *others}


def on_disk(output: Path) -> list[Path]:
    return [path for path in output.rglob("*") if path.is_file() and ONLY_THERE in path.read_bytes()]


def test_without_one_mention_it_is_a_table_like_any_other(nobody: Job, prepared: Job, truth: Truth) -> None:
    assert nobody.read("entities", *OPTIONS).count() == 0
    assert [row.doc_id for row in nobody.read("documents").collect()] == ["none"]
    check(prepared, truth, SOURCE)  # the run after it


def test_a_run_brings_in_what_changed_and_erasure_waits_for_it(
    filled: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tables of 0.1.0, which had one column less; and while another run's swap is between its two renames."""
    tables = Tables(filled.spark, loaded(filled).output)
    older = tables.read("entities").drop("entity_normalized").localCheckpoint()
    older.write.mode("overwrite").partitionBy("label").parquet(tables.address("entities"))
    changed = {**SOURCE, "d1": POOL[10], "new": POOL[11]}
    del changed["erased"]
    filled.texts(list(changed.items()))
    with pytest.raises(OutputError, match="run the job"):
        erase(filled.spark, loaded(filled), ["erased"])
    assert on_disk(filled.output)

    blank, missed, pauses = Tables._blank, [], []

    def between_two_renames(tables: Tables, name: str) -> bool:
        if not missed:
            missed.append(name)
            raise FileNotFoundError(name)
        return blank(tables, name)

    with monkeypatch.context() as patched:
        patched.setattr(Tables, "_blank", between_two_renames)
        patched.setattr(table_setup, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
        summary = filled.run(*OPTIONS)
    assert (missed, pauses) == (["entities"], [1])
    assert (summary.mode, summary.documents, summary.removed) == ("compare", 2, 1)
    check(filled, truth, changed)
    rows = filled.read("entities", *OPTIONS).select("entity", "entity_normalized")
    assert sorted(rows.collect()) == sorted(table_rows.normalized(rows.select("entity")).collect())

    assert erase(filled.spark, loaded(filled), ["erased"])["entities"] == 0
    assert not on_disk(filled.output)
    check(filled, truth, changed, "erasures")


def test_full_makes_everything_anew(filled: Job, truth: Truth) -> None:
    changed = {**SOURCE, "d1": POOL[10]}
    del changed["d2"]
    summary = filled.texts(list(changed.items())).run(*OPTIONS, full=True)
    assert (summary.mode, summary.documents) == ("full", len(changed))
    check(filled, truth, changed)
    assert {row.run_id for row in filled.read("documents").collect()} == {summary.run_id}
    assert {row.run_id for row in filled.read("entities", *OPTIONS).collect()} == {summary.run_id}


def test_nothing_is_left_of_labels_that_are_not_found_any_more(filled: Job) -> None:
    assert filled.texts([]).run(*OPTIONS).removed == len(SOURCE)
    assert filled.read("entities", *OPTIONS).count() == 0
    assert labels(filled) == set()


def test_a_swap_that_died_in_the_middle_is_undone_or_finished(filled: Job, truth: Truth) -> None:
    entities, replaced, written = (filled.output / name for name in ("entities", "_replaced", "_written_7"))
    tables = Tables(filled.spark, loaded(filled).output)
    # As a run killed between its two renames leaves it.
    entities.rename(replaced)
    written.mkdir()
    (written / "half.parquet").write_bytes(b"half")
    staging.settle_swap(tables)
    check(filled, truth, SOURCE)

    # As one killed after both of them leaves it.
    shutil.copytree(entities, replaced)
    staging.settle_swap(tables)
    check(filled, truth, SOURCE)
