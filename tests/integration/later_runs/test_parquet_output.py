"""Test outputs with a Parquet export of `entities`: after every run, the export must equal the Delta table.

tests/stages/test_parquet_export.py tests how an export replaces the previous one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from delta_reader import read_delta
from entitymill import settings
from entitymill.errors import OutputError
from entitymill.run.erasure import erase
from entitymill.tables import Tables, maintenance, parquet_export
from expected_tables import MENTION, TEXT_POOL, ExpectedTables
from integration.conftest import Job
from integration.delta_source import BASE
from integration.stub_world import hook

OPTIONS = ("output.format=parquet", "output.adopt_source=true")
"""Settings of all runs; adopt_source is needed in a copied output, because the copy's source has another path."""
SOURCE = {**BASE, "erased": TEXT_POOL[7]}
ONLY_THERE = b"Federal Election Commission"


@pytest.fixture(scope="module")
def nobody(module_job: Job) -> Job:
    """Return the output of a run that found no mentions."""
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
    """Copy an output to a directory; a Delta table can be copied, because its log has relative paths."""
    shutil.copytree(job.directory, directory, dirs_exist_ok=True)
    return Job(job.spark, directory)


def loaded(job: Job) -> settings.Settings:
    return settings.load(None, job.options(*OPTIONS), {})


def labels(job: Job) -> set[str]:
    """Return the labels for which the export has a directory."""
    return {path.name.removeprefix("label=") for path in (job.output / "entities").glob("label=*")}


def exported_version(job: Job) -> int:
    return int(json.loads((job.output / "entities" / "_entitymill_export.json").read_text())["version"])


def check(job: Job, truth: ExpectedTables, source: dict[str, str], *others: str) -> None:
    """Check the rows of the export and the Delta table, and that the output contains only tables and `others`."""
    truth.check(job.output, source)
    mentions = truth.entities(source)
    delta = read_delta(job.output / "entities_delta").to_pylist()
    assert sorted((row["doc_id"], row["mention_id"]) for row in delta) == [row[:2] for row in mentions]
    assert labels(job) == {row[2 + MENTION.index("label")] for row in mentions}
    tables = {"documents", "entities", "entities_delta", "rejects", "runs", *others}
    assert {path.name for path in job.output.iterdir()} == tables


def on_disk(output: Path) -> list[Path]:
    return [path for path in output.rglob("*") if path.is_file() and ONLY_THERE in path.read_bytes()]


def test_without_one_mention_it_is_a_table_like_any_other(nobody: Job, prepared: Job, truth: ExpectedTables) -> None:
    assert nobody.read("entities", *OPTIONS).count() == 0
    assert [row.doc_id for row in nobody.read("documents").collect()] == ["none"]
    check(prepared, truth, SOURCE)  # the next run


def test_a_run_exports_what_it_changed_and_an_erased_document_is_in_neither_copy(filled: Job, truth: ExpectedTables) -> None:
    changed = {**SOURCE, "d1": TEXT_POOL[10], "new": TEXT_POOL[11]}
    del changed["erased"]
    filled.texts(list(changed.items()))
    assert on_disk(filled.output)
    assert erase(filled.spark, loaded(filled), ["erased"])["entities"] > 0
    assert not on_disk(filled.output)
    check(filled, truth, {key: text for key, text in SOURCE.items() if key != "erased"}, "erasures")

    summary = filled.run(*OPTIONS)
    assert (summary.mode, summary.documents, summary.removed) == ("compare", 2, 0)
    check(filled, truth, changed, "erasures")


def test_full_recomputes_all_and_exports_it(filled: Job, truth: ExpectedTables) -> None:
    changed = {**SOURCE, "d1": TEXT_POOL[10]}
    del changed["d2"]
    summary = filled.texts(list(changed.items())).run(*OPTIONS, full=True)
    assert (summary.mode, summary.documents) == ("full", len(changed))
    check(filled, truth, changed)
    assert {row.run_id for row in filled.read("documents").collect()} == {summary.run_id}
    exported = filled.spark.read.parquet(str(filled.output / "entities"))
    assert {row.run_id for row in exported.collect()} == {summary.run_id}


def test_a_directory_that_another_program_wrote_during_the_run_is_not_replaced(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = job.output / "entities" / "theirs.parquet"

    def write(*_: object) -> None:
        others.parent.mkdir(exist_ok=True)
        others.touch()

    hook(monkeypatch, parquet_export, "export", write)
    with pytest.raises(OutputError, match="was not written by this program"):
        job.texts(list(SOURCE.items())).run(*OPTIONS)
    assert others.exists()


def test_a_run_with_nothing_to_do_renews_an_outdated_export_and_leaves_a_current_one(
    filled: Job, truth: ExpectedTables
) -> None:
    """A run without changes must write an export only if there is no current one, for example after a run that died."""
    filled.texts(list(SOURCE.items())).run(*OPTIONS)
    version, files = exported_version(filled), sorted((filled.output / "entities").rglob("*"))
    assert filled.run(*OPTIONS).mode == "none"
    assert (exported_version(filled), sorted((filled.output / "entities").rglob("*"))) == (version, files)

    (filled.output / "entities").rename(filled.output / "_replaced_7")
    (filled.output / "_export_7").mkdir()
    maintenance.optimize(Tables(filled.spark, loaded(filled).output), sort=True)
    summary = filled.run(*OPTIONS)
    assert (summary.mode, summary.documents) == ("compare", 0)
    assert exported_version(filled) > version
    check(filled, truth, SOURCE)
