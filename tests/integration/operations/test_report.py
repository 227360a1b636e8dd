"""Test the report page and the metrics of runs, from real tables."""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from entitymill import cli, settings
from entitymill.errors import OutputError, SettingsError
from entitymill.run.summary import Summary
from entitymill.tables import Tables
from entitymill_reports import drift as drift_module
from entitymill_reports import page_excerpts, page_queries, prometheus_metrics, reports_of_a_run
from entitymill_reports.page_data import PageContent
from expected_tables import TEXT_POOL
from integration.conftest import Job

from .page_reading import read_both_ways

DAY = dt.date(2026, 11, 1)
DATED = ("source.passthrough=[published]", "limits.max_reject_ratio=1")
PAGE = (*DATED, "report.date_column=published")
SCRIPT = "Angela Merkel met <script>alert(1)</script> in Paris & Rome."


def texts(job: Job, count: int) -> Job:
    """Write a source with one dated document per day, one that changes with `count`, a blank one, and two invalid rows."""
    changing = "Rome." if count < 20 else "Paris and London."
    rows: list[tuple[str | None, str | None, dt.date | None]]
    rows = [(f"d{at}", text, DAY + dt.timedelta(days=at)) for at, text in enumerate([SCRIPT, *TEXT_POOL][:count])]
    rows += [("<b>null</b>", None, DAY), (None, "no id", DAY), ("undated", changing, None), ("blank", " ", DAY)]
    kinds = (pa.string(), pa.string(), pa.date32())
    columns = (pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True))
    return job.texts(pa.table(dict(zip(("id", "text", "published"), columns, strict=True))))


@pytest.fixture(scope="module")
def output(module_job: Job) -> Job:
    """Return the output of three runs: the second has several units, the third has nothing to do."""
    texts(module_job, 12).run(*DATED)
    texts(module_job, 20).run(*DATED, "limits.unit_rows=4")
    module_job.run(*DATED, "limits.unit_rows=4")
    return module_job


def loaded(job: Job, *overrides: str) -> settings.Settings:
    return settings.load(None, job.options(*PAGE, *overrides), {})


def read(job: Job, *overrides: str, needs_spark: bool = False) -> PageContent:
    return read_both_ways(job, loaded(job, *overrides), needs_spark=needs_spark)


def test_figures_are_those_of_the_tables(output: Job) -> None:
    found = read(output)
    entities, documents = output.read("entities").collect(), output.read("documents").collect()
    runs = sorted(output.read("runs").collect(), key=lambda row: row.started_at)

    assert [run.run_id for run in found.runs] == [runs[1].run_id, runs[0].run_id]
    assert found.last_idle == runs[2].started_at.astimezone(dt.timezone.utc)
    assert found.run is not None
    assert (found.run.run_id, found.run.mode) == (runs[1].run_id, "compare")
    assert [run.run_id for run in found.before] == [runs[0].run_id]
    own = [row.confidence for row in entities if row.run_id == found.run.run_id]
    assert found.run.current_mentions == len(own)
    assert found.run.confidence == pytest.approx(sum(own) / len(own))
    assert found.run.mentions == len(own)

    assert {label.name: label.mentions for label in found.labels} == Counter(row.label for row in entities)
    bins = Counter(min(19, int(row.confidence * 20)) for row in entities)
    assert [sum(label.bins[at] for label in found.labels) for at in range(20)] == [bins[at] for at in range(20)]
    assert found.mentions == len(entities)

    sizes = Counter(-1 if row.tokens == 0 else row.tokens.bit_length() - 1 for row in documents)
    assert found.documents.by_tokens == sizes
    assert found.documents.documents == len(documents)
    assert found.documents.blank == 1
    assert found.documents.tokens == sum(row.tokens for row in documents)

    spans = {(row.doc_id, row.sentence_id): row.sentence_end - row.sentence_begin for row in entities}
    lengths = Counter(min(20, length // 20) for length in spans.values())
    assert found.lengths.bins == tuple(lengths[at] for at in range(21))
    assert found.lengths.one_in == 1

    assert found.days is not None
    assert found.days.step == "day"
    days = {day: sum(counts.values()) for day, counts in found.days.counts.items()}
    assert days == Counter(row.published for row in entities if row.published)
    assert found.days.without == sum(row.published is None for row in entities) > 0

    refused = {(reject.code, reject.rows, reject.examples) for reject in found.rejects}
    assert refused == {("null_text", 1, ("<b>null</b>",)), ("null_id", 1, ())}
    assert len(found.units) == found.run.units > 1
    assert sum(unit.documents for unit in found.units) == found.run.documents
    assert found.shown is None
    assert f"path: {output.directory}/texts.parquet" in found.settings


def test_units_of_which_the_first_is_not_known(output: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    every = read(output).units
    monkeypatch.setattr(page_queries, "MAX_COMMITS", 2)
    assert read(output).units == every[-1:]


def test_many_mentions_are_measured_by_a_part_of_the_documents(output: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_queries, "SAMPLED_MENTIONS", 10)
    found = read(output)
    assert found.lengths.one_in == found.mentions // 10
    sentences = len({(row.doc_id, row.sentence_id) for row in output.read("entities").collect()})
    assert 0 < sum(found.lengths.bins) < sentences


@pytest.mark.parametrize(("room", "step", "first"), [(3, "week", DAY - dt.timedelta(days=6)), (2, "month", DAY)])
def test_days_are_taken_together_where_there_are_many(
    output: Job, monkeypatch: pytest.MonkeyPatch, room: int, step: str, first: dt.date
) -> None:
    monkeypatch.setattr(page_queries, "MAX_STEPS", room)
    found = read(output).days
    assert found is not None
    assert (found.step, min(found.counts)) == (step, first)  # weeks begin on Monday
    dated = [row for row in output.read("entities").collect() if row.published]
    assert sum(sum(counts.values()) for counts in found.counts.values()) == len(dated)


def test_samples_are_sentences_with_their_mentions(output: Job) -> None:
    found = read(output, "report.show_text=true").shown
    assert found is not None
    entities = output.read("entities").collect()
    counted = Counter((row.label, row.entity) for row in entities)
    for label, top in found.top.items():
        own = sorted(((-count, entity) for (kind, entity), count in counted.items() if kind == label))
        assert list(top) == [(entity, -count) for count, entity in own[: page_excerpts.TOP]]
    sources = {f"d{at}": text for at, text in enumerate([SCRIPT, *TEXT_POOL])} | {"undated": "Paris and London."}
    assert found.sentences
    for sentence in found.sentences:
        assert "".join(part.text for part in sentence.parts) in sources[sentence.doc_id]
        assert sentence.samples
        assert any(part.sampled for part in sentence.parts)
    least = sorted(row.confidence for row in entities)[: page_excerpts.SAMPLE_SIZE]
    sampled = [part.confidence for one in found.sentences if "least" in one.samples for part in one.parts if part.sampled]
    assert set(least) <= set(sampled)
    assert read(output, "report.show_text=true").shown == found


def test_sentences_of_changed_documents_are_left_out(output: Job) -> None:
    source = output.directory / "texts.parquet"
    as_it_was = source.read_bytes()
    other = "Something else, and longer than what was there before, in Paris."
    try:
        output.texts(pa.table({"id": ["d0"], "text": [other], "published": [DAY]}))
        found = read(output, "report.show_text=true").shown
        assert found is not None
        assert (found.sentences, found.changed > 0) == ((), True)
        source.unlink()
        found = read(output, "report.show_text=true", needs_spark=True).shown
        assert found is not None
        assert "source.path" in found.problem
        assert found.top
    finally:
        source.write_bytes(as_it_was)


@pytest.fixture(scope="module")
def texted(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return the output of a run on a source with dates in a string column, and a column of numbers."""
    job = Job(spark, tmp_path_factory.mktemp("texted"))
    days = ["2026-11-03", "2026-11-03T23:00:00", "soon"]
    number = pa.array([3, 4, 5], pa.int32())
    job.texts(pa.table({"id": ["a", "b", "c"], "text": ["Paris."] * 3, "published": days, "number": number}))
    job.run("source.passthrough=[published, number]")
    return job


@pytest.mark.parametrize(
    ("column", "message"),
    [("number", "number is int; it must be a date"), ("later", "not in the table entities yet")],
)
def test_a_column_without_days_is_named(texted: Job, column: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"report.date_column: .*{message}"):
        read(texted, f"source.passthrough=[{column}]", f"report.date_column={column}")


def test_days_may_be_text(texted: Job) -> None:
    found = read(texted).days
    assert found is not None
    assert (found.counts, found.without) == ({dt.date(2026, 11, 3): {"LOC": 2}}, 1)


def test_the_command_writes_a_page(output: Job, capsys: pytest.CaptureFixture[str]) -> None:
    page = output.directory / "page.html"
    options = [item for option in output.options(*PAGE, "log=stderr") for item in ("--set", option)]
    assert cli.main(["report", *options, "--to", str(page)]) == 0
    assert capsys.readouterr().out == f"page {page}\n"
    written = page.read_text(encoding="utf8")
    assert "Angela Merkel" not in written
    assert cli.main(["report", *options, "--set", "report.show_text=true", "--to", str(page)]) == 0
    written = page.read_text(encoding="utf8")
    assert "Angela Merkel" in written
    assert "<script>alert" not in written
    assert [file.name for file in output.directory.iterdir() if "page" in file.name] == ["page.html"]
    capsys.readouterr()
    assert cli.main(["report", *options]) == 2
    assert "Neither --to nor report.path names the HTML file to write" in capsys.readouterr().err
    assert cli.main(["report", *options, "--to", str(page), "--run", "nobody"]) == 2
    assert "nobody is not among the latest" in capsys.readouterr().err


def test_an_output_that_is_not_there(job: Job) -> None:
    with pytest.raises(OutputError, match=r"no entity tables in .*run the job first"):
        read(job)


def test_a_run_writes_its_page_and_metrics_and_ends_with_6(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    page, file = job.directory / "page.html", job.directory / "run.prom"
    kept = (f"report.path={page}", f"metrics.textfile={file}", "report.fail_on_drift=true", "report.drift_sentences=3")
    options = [item for option in job.options(*PAGE, *kept, "log=stderr") for item in ("--set", option)]
    texts(job, 12)
    assert cli.main(["extract", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=1) == ["page", str(page)]
    assert sampled(file)["entitymill_run_drift_marked"] == 0
    page.unlink()

    names = pa.array([f"Angela Merkel met John Smith. Peter Brown called. {at}" for at in range(4)])
    job.texts(pa.table({"id": ["e0", "e1", "e2", "e3"], "text": names, "published": [DAY] * 4}))
    assert cli.main(["extract", *options]) == 6
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].split(maxsplit=1) == ["page", str(page)]
    assert "the run was published, but differs from the previous run" in said.err
    assert "Smith" not in said.err + said.out
    assert "beyond its bound" in page.read_text(encoding="utf8")
    found = sampled(file)
    assert found["entitymill_run_success"] == 1
    assert found["entitymill_run_exit_code"] == 6
    assert found["entitymill_run_drift_marked"] > 0
    assert found["entitymill_runs_total"] == 2
    total = sum(row.documents for row in job.read("runs").collect())
    assert found["entitymill_documents_total"] == total

    # A run with nothing to do has no drift, and writes the page of the run before.
    page.unlink()
    assert cli.main(["extract", *options]) == 0
    assert "beyond its bound" in page.read_text(encoding="utf8")


def test_a_page_that_cannot_be_written_fails_no_run(output: Job) -> None:
    chosen = loaded(output, "report.path=/proc/page.html", "report.fail_on_drift=true", "report.drift_sentences=1000000")
    latest = next(run for run in read(output).runs if run.mode == "compare")
    summary = Summary(latest.run_id, dt.datetime.now(dt.timezone.utc), mode="compare")
    told = io.StringIO()

    drift = reports_of_a_run.write_page_and_compare_runs(
        output.spark, chosen, Tables(output.spark, chosen.output), summary, Console(file=told)
    )

    said = " ".join(told.getvalue().split())
    assert "The run was published, but its page could not be written: report.path: /proc/page.html cannot be written" in said
    assert drift is not None, "it is looked at without a page, too"
    drift_module.check_drift(drift, chosen.report)


def test_a_failed_run_says_so_in_its_metrics(job: Job) -> None:
    file = job.directory / "run.prom"
    options = [*texts(job, 3).options("limits.max_reject_ratio=0", "log=stderr"), f"metrics.textfile={file}"]
    assert cli.main(["extract", *(item for option in options for item in ("--set", option))]) == 4
    found = sampled(file)
    assert (found["entitymill_run_success"], found["entitymill_run_exit_code"]) == (0, 4)
    assert found["entitymill_runs_total"] == 1  # the failed run


def test_totals_are_sums_over_the_runs(output: Job) -> None:
    tables = Tables(output.spark, loaded(output).output)
    one = output.read("runs").where("documents > 0").limit(1)
    for status in ("running", "stopped"):  # running runs do not count, stopped runs do
        tables.append(one.withColumn("status", F.lit(status)).withColumn("run_id", F.lit(status)), "runs")
    found = prometheus_metrics.read_totals(tables)
    runs = output.read("runs").where("status <> 'running'").collect()
    tables.delete("runs", "status IN ('running', 'stopped')")
    assert found is not None
    assert found.runs == {"done": 2, "stopped": 1}  # without the run that had nothing to do
    assert found.documents == sum(row.documents for row in runs)
    assert found.sentences == sum(row.sentences for row in runs)
    labels = {label for row in runs for label in row.entities_by_label}
    assert found.mentions == {label: sum(row.entities_by_label.get(label, 0) for row in runs) for label in labels}
    assert found.last_success == pytest.approx(max(row.ended_at for row in runs).timestamp())


def sampled(file: Path) -> dict[str, float]:
    """Return a dict metric name -> value from a file in Prometheus's text format, summed over labels."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(file.read_text(encoding="utf8")):
        for sample in family.samples:
            found[sample.name] += sample.value  # type: ignore[assignment]
    return found  # type: ignore[return-value]
