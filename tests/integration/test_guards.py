"""What a run refuses to destroy, and what lifts that; and what of a dead run's is recomputed. A stand-in for the engine."""

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


def test_more_documents_gone_than_allowed_stop_the_run_before_it_changes_any(
    job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of which a person may let them go, once. The shares are counted in tests/stages/test_guards.py."""
    job.texts(TEN).run()
    # Where too much is refused that is said, and not that documents are gone: `rejects` lists them.
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

    # Nor may more go where all are recomputed, since a table was lost; the source is the output's own by now.
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
    """As a kill, it is nothing that the run could write down."""


@pytest.fixture
def dies_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Job, str, str], None]:
    """Let a run die in its last unit, before it commits to a table."""

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


def test_a_unit_that_was_published_half_is_recomputed_and_nothing_else(job: Job, dies_before: Callable[..., None]) -> None:
    """Though the source is back at what `documents` says: nobody else would look at it again."""
    copied = "output.deletion_vectors=false"
    job.texts(TEN).run(copied)
    before = mentions(job)
    job.texts([*TEN[:1], ("d1", "Zoe Zurich 1"), *TEN[2:]])
    dies_before(job, "documents", copied)
    assert "Zoe" in {row["entity"] for row in read_delta(job.output / "entities").to_pylist()}

    # What else was published stays published meanwhile: nothing is rolled back.
    assert {row[0] for row in mentions(job)} == {key for key, _ in TEN}
    assert job.texts(TEN).run(copied).documents == 1

    assert mentions(job) == before
    assert [row.status for row in job.read("runs").orderBy("started_at").collect()] == ["done", "failed", "done"]

    # Nor does it take history: after a VACUUM by somebody else, in which the old files went.
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
