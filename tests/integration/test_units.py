"""A run goes unit by unit; one that died goes on where it was."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from pyspark import Accumulator
from pyspark.sql import DataFrame, SparkSession

from entitymill import settings
from entitymill.engines.engine import open_engine
from entitymill.platform import storage
from entitymill.platform.session import configured
from entitymill.run import extraction, units
from entitymill.settings import Settings
from entitymill.settings.sections import LimitSettings
from entitymill.source.changes import Changes
from entitymill.tables import Tables, commits, layout
from entitymill.tables.publisher import Publisher, Unit
from entitymill.tables.staging import Staging
from entitymill.tables.temporary_tables import Kept
from truth import POOL, Truth

from .conftest import Job

SOURCE = {f"d{i:02}": text for i, text in enumerate(POOL[:9])}
SMALL = "limits.unit_rows=3"
ALL_STEPS = os.environ.get("ENTITYMILL_SWAP") == "all"
"""Of a swap, as `make test-faults` tries them; otherwise one, at which `entities` is new and `documents` still old."""


def dies_in_the_second_unit(job: Job, monkeypatch: pytest.MonkeyPatch, *overrides: str, full: bool = False) -> None:
    """A run, but for that; tests/faults has real deaths."""
    publish, numbers = Publisher.publish, itertools.count(1)

    def instead(publisher: Publisher, unit: Unit, *others: Any, **named: Any) -> None:
        if next(numbers) == 2:
            raise RuntimeError("died")
        publish(publisher, unit, *others, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "publish", instead)
        with pytest.raises(RuntimeError, match="died"):
            job.run(*overrides, full=full)


def published(job: Job) -> int:
    """Commits of units to `entities`."""
    history = DeltaTable.forPath(job.spark, str(job.output / "entities")).history()
    return history.where("operation = 'WRITE' AND userMetadata LIKE '%unit%'").count()


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_a_run_that_died_is_continued(job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    chosen = (SMALL, f"output.format={format_}")
    source = dict(itertools.islice(SOURCE.items(), 6))
    job.texts(list(source.items()))
    dies_in_the_second_unit(job, monkeypatch, *chosen)
    if format_ == "delta":
        truth.check(job.output, dict(itertools.islice(source.items(), 3)))
        assert published(job) == 1
    else:
        assert not (job.output / "entities").exists()
    summary = job.run(*chosen)

    assert (summary.mode, summary.documents, summary.removed) == ("compare", 3, 0)
    truth.check(job.output, source)
    assert sorted(row.status for row in job.read("runs").collect()) == ["done", "failed"]
    if format_ == "delta":
        assert published(job) == 2


def test_full_makes_everything_anew_and_goes_on_where_it_died(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dict(itertools.islice(SOURCE.items(), 6))
    job.texts(list(source.items())).run()
    before = {label for *_, label in job.mentions()}
    kept = [*list(source)[:5], "other"]
    without_persons = dict(zip(kept, (POOL[place] for place in (2, 4, 5, 10, 2, 4)), strict=True))
    job.texts(list(without_persons.items()))
    # What a dead --full has done already is not gone from the source.
    chosen = (SMALL, "limits.max_removed_ratio=0.2")
    dies_in_the_second_unit(job, monkeypatch, *chosen, full=True)
    truth.check(job.output, source)  # nothing of a half rebuild is seen
    # With this mode Spark would leave the rows of labels that are found no more.
    with configured(job.spark, {"spark.sql.sources.partitionOverwriteMode": "dynamic"}):
        summary = job.run(*chosen, full=True)

    assert (summary.mode, summary.documents) == ("full", 3)
    truth.check(job.output, without_persons)
    assert before - {label for *_, label in job.mentions()} == {"PER"}
    assert sorted(row.status for row in job.read("runs").collect()) == ["done", "done", "failed"]
    assert sorted(path.name for path in job.output.glob("_*")) == []


class Died(BaseException):
    """As a kill, it is nothing that the run could write down."""


def dies_in_the_swap(patched: pytest.MonkeyPatch, step: int) -> None:
    """Let a run die just before a step of those that make what it collected visible."""
    steps = itertools.count(1)
    swapping: list[bool] = []

    def counting(of: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            if swapping and next(steps) == step:
                raise Died
            return of(*arguments, **named)

        return instead

    def finish(staging: Staging, of: Callable[..., None] = Staging.finish) -> None:
        swapping.append(True)
        of(staging)

    patched.setattr(Staging, "finish", finish)
    for owner, name in ((commits, "retried"), (Staging, "_mark"), (storage, "rename"), (storage, "remove")):
        patched.setattr(owner, name, counting(getattr(owner, name)))


def dead_run(job: Job) -> str:
    return str(job.read("runs").orderBy("started_at", ascending=False).first().run_id)


def claims_no_more_than_there_is(job: Job, kind: str) -> bool:
    """What the run that died says of its documents; of others that changed, `documents` may be behind."""
    mentions = job.read("entities", kind).groupBy("doc_id").count()
    claims = job.read("documents").where(f"entities > 0 AND run_id = '{dead_run(job)}'").join(mentions, "doc_id", "left")
    return not claims.where("count IS NULL OR count <> entities").take(1)


def documents_are_behind(job: Job, kind: str) -> bool:
    """Whether the run that died between two commits did the first alone."""
    done = [bool(job.read(name, kind).where(f"run_id = '{dead_run(job)}'").take(1)) for name in ("entities", "documents")]
    return done == [True, False]


# Of Delta: marked as complete, `entities`, `documents`. Of Parquet: marked, two renames, the old directory's removal.
@pytest.mark.parametrize(("format_", "full", "between"), [("delta", True, 3), ("parquet", False, 4)])
def test_a_run_may_die_at_any_step_of_the_swap(
    job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch, format_: str, full: bool, between: int
) -> None:
    kind = f"output.format={format_}"
    source = dict(itertools.islice(SOURCE.items(), 3))
    job.texts(list(source.items())).run(kind)
    for night, step in enumerate(itertools.count(1) if ALL_STEPS else (between,), 1):
        source["d01"] = POOL[6 + night % 2]  # all of these have mentions, else nothing could be claimed of them
        source.pop("d02" if night % 2 else "new", None)
        source["new" if night % 2 else "d02"] = POOL[8]
        job.texts(list(source.items()))
        with monkeypatch.context() as patched:
            dies_in_the_swap(patched, step)
            try:
                job.run(kind, full=full)
            except Died:
                pass
            else:
                break  # it has no more steps
        if (job.output / "entities").exists():
            assert claims_no_more_than_there_is(job, kind)
        assert step != between or documents_are_behind(job, kind)
        job.run(kind)
        truth.check(job.output, source)
        assert not [path.name for path in job.output.iterdir() if path.name.startswith(("_gone", "_replaced", "_written"))]
    else:
        return
    assert step > 6


def counted(rows: DataFrame, counter: Accumulator[int]) -> DataFrame:
    """The same rows, each counted as often as it is computed."""

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counter.add(batch.num_rows)
            yield batch

    return rows.mapInArrow(count, rows.schema)


def test_the_model_runs_once_over_known_documents(job: Job, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta throws away what is cached of a table it commits to; of what a unit recognised, it must find nothing to."""
    job.texts(list(SOURCE.items())).run()
    recognised = job.spark.sparkContext.accumulator(0)

    def counting(spark: SparkSession, settings: Settings) -> extraction.Engine:
        engine = open_engine(spark, settings)

        def load() -> Callable[..., Any]:
            recognise = engine.load()
            return lambda rows: counted(recognise(rows), recognised)

        return replace(engine, load=load)

    monkeypatch.setattr(extraction, "open_engine", counting)
    # Any number of files is too many here: the run joins at its end what its units added. The old file is no small one.
    monkeypatch.setattr(layout, "MOST_FILES", 0)
    monkeypatch.setattr(layout, "SMALL_PART", 1)
    changed = {**SOURCE, **dict(zip(SOURCE, POOL[12:16], strict=False))}
    assert job.texts(list(changed.items())).run("limits.unit_rows=2").units == 2
    assert recognised.value == 4
    truth.check(job.output, changed)
    assert job.spark.sql(f"DESCRIBE DETAIL delta.`{job.output}/documents`").first().numFiles == 2


def test_a_unit_reads_its_own_rows_and_no_others(job: Job) -> None:
    read = job.spark.sparkContext.accumulator(0)
    rows = job.spark.range(1000).selectExpr("format_string('%04d', id) AS doc_id", "1L AS chars", "false AS known")
    found = Changes(
        mode="first", documents=counted(rows, read), removed=rows, refused=rows, whole=True, rows=1000, counts={},
        to_recognise=1000, to_remove=0, chars=1000, known=0,
    )  # fmt: skip
    limits = LimitSettings(unit_rows=100)
    sampled = None
    seen: list[str] = []
    kept = Kept(Tables(job.spark, settings.load(None, job.options(), {}).output))
    for piece in units.cut(found, limits, kept.units):
        sampled = sampled or read.value
        ids = [row.doc_id for row in piece.documents.collect()]
        assert (len(ids), len(piece.documents.inputFiles()), piece.known) == (piece.rows, 1, False)
        assert min(ids) > max(seen, default="")
        seen += ids
    assert len(seen) == len(set(seen)) == 1000
    assert read.value == sampled, "what the work is made of is not computed again for a unit"
    kept.close()
    assert not list(job.output.iterdir())
