"""Test what a run refuses to remove, how to allow it, and what the run after a crash recomputes; the engine is a stub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from bench import stub_engine
from delta_reader import read_delta
from entitymill.commands import extract as command
from entitymill.errors import RejectedError, SettingsError
from entitymill.run import extraction
from entitymill.tables.publisher import Publisher

from .conftest import Job

TEN = [(f"d{i}", f"Anna Berlin {i}") for i in range(10)]


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "open_engine", stub_engine.open_stub)


def ids(job: Job) -> set[str]:
    return {row["doc_id"] for row in read_delta(job.output / "documents").to_pylist()}


@pytest.mark.deep
def test_more_documents_gone_than_allowed_stop_the_run_before_it_changes_any(
    job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run must exceed the limit only with --allow-removals; tests/stages/test_guards.py tests how the share is counted."""
    job.texts(TEN).run()
    # If too many rows are rejected, the error must say so, and not report their documents as removed.
    job.texts([*TEN[:4], *((key, None) for key, _ in TEN[4:])])
    with pytest.raises(RejectedError, match=r"6 of 10 rows of .* were rejected \(6 null_text\)"):
        job.run("limits.max_removed_ratio=0.2")
    assert read_delta(job.output / "rejects")["code"].to_pylist() == ["null_text"] * 6

    job.texts(TEN[:7])
    (job.directory / "texts.parquet").rename(job.directory / "others.parquet")
    others = (f"source.path={job.directory}/others.parquet", "limits.max_removed_ratio=0.2")
    adopting = (*others, "output.adopt_source=true")
    options = [item for option in job.options(*adopting, f"log={job.directory}/run.log") for item in ("--set", option)]

    with pytest.raises(
        SettingsError, match=r"/out belongs to .*/texts\.parquet.*give .*/others\.parquet an output of its own"
    ):
        job.run(*others)
    assert command.main(options) == 4
    assert "3 of the 10 documents" in capfd.readouterr().err
    assert command.main([*options, "--full"]) == 4
    assert len(ids(job)) == len(read_delta(job.output / "entities").to_pylist()) / 2 == 10
    assert command.main([*options, "--allow-removals"]) == 0
    assert ids(job) == {key for key, _ in TEN[:7]}

    # The limit must also hold if a lost table makes the run recompute all documents. The output has adopted the new source.
    shutil.rmtree(job.output / "entities")
    job.texts(TEN[:2])
    (job.directory / "texts.parquet").rename(job.directory / "others.parquet")
    with pytest.raises(RejectedError, match="5 of the 7 documents"):
        job.run(*others)
    assert ids(job) == {key for key, _ in TEN[:7]}


def mentions(job: Job) -> list[tuple[str, str, str]]:
    rows = read_delta(job.output / "entities").to_pylist()
    return sorted((row["doc_id"], row["mention_id"], row["entity"]) for row in rows)


class Died(BaseException):
    """Raised to end a run between two commits; a BaseException, so that no `except Exception` of the run catches it."""


@pytest.fixture
def dies_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job, str, str], None]:
    """Return a function that starts a run which dies before its first commit to a given table."""

    def run(job: Job, table: str, *overrides: str) -> None:
        def instead(publisher: Publisher, name: str, *rest: object, of: Callable[..., None], **named: object) -> None:
            if name == table:
                raise Died
            of(publisher, name, *rest, **named)

        with monkeypatch.context() as patched:
            for method in ("_append", "_replace", "_merge"):
                of = getattr(Publisher, method)
                patched.setattr(Publisher, method, lambda *rest, of=of, **named: instead(*rest, of=of, **named))
            with pytest.raises(Died):
                job.run(*overrides)

    return run


@pytest.mark.deep
def test_a_unit_that_was_published_half_is_recomputed_and_nothing_else(job: Job, dies_before: Callable[..., None]) -> None:
    """The run after a crash must recompute a partly published unit, even if `documents` and the source agree."""
    copied = "output.deletion_vectors=false"
    job.texts(TEN).run(copied)
    before = mentions(job)
    job.texts([*TEN[:1], ("d1", "Zoe Zurich 1"), *TEN[2:]])
    dies_before(job, "documents", copied)
    assert "Zoe" in {row["entity"] for row in read_delta(job.output / "entities").to_pylist()}

    # All other documents stay published, because nothing is rolled back.
    assert {row[0] for row in mentions(job)} == {key for key, _ in TEN}
    assert job.texts(TEN).run(copied).documents == 1

    assert mentions(job) == before
    assert [row.status for row in job.read("runs").orderBy("started_at").collect()] == ["done", "failed", "done"]

    # The next run must not need old files, which a VACUUM by somebody else may have deleted.
    job.texts([("d0", "Bob Cairo 0"), *TEN[1:]])
    dies_before(job, "documents", copied)
    present = {Path(uri).name for uri in DeltaTable(job.output / "entities").file_uris()}
    old = [data for data in (job.output / "entities").glob("label=*/*.parquet") if data.name not in present]
    assert old
    for data in old:
        data.unlink()
    assert job.run(copied).documents == 1
    entities = read_delta(job.output / "entities").to_pylist()
    assert sorted(row["entity"] for row in entities if row["doc_id"] == "d0") == ["Bob", "Cairo"]
    assert len(entities) == 20
