"""Redacted texts, erased documents, and mentions that are not wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitymill import cli, settings
from entitymill.commands.redact import parser
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.tables import Tables, table_rows
from entitymill.tables.erasure import erase
from entitymill.tables.redaction import masked, redact

from .conftest import Job

TEXTS = {
    "a": "😀 Angela Merkel flew to Paris.",
    "b": "Barack Obama met Angela Merkel's team in Berlin.",
    "c": "Nothing here.",
}


@pytest.fixture
def filled(job: Job) -> Job:
    job.texts(list(TEXTS.items())).run()
    return job


def loaded(job: Job, *overrides: str) -> settings.Settings:
    return settings.load(None, job.options(*overrides), {})


@given(st.text(max_size=30), st.data())
def test_masking_takes_out_the_spans_and_nothing_else(text: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [(begin, end, "PER") for begin, end in zip(edges[::2], edges[1::2], strict=False)]
    kept = [text[end:begin] for end, begin in zip([0, *(s[1] for s in spans)], [*(s[0] for s in spans), None], strict=True)]
    assert masked(text, spans[::-1], "<{label}>") == "<PER>".join(kept)
    assert len(masked(text, spans, "X")) == len(text)


def test_texts_are_redacted(filled: Job) -> None:
    to = str(filled.directory / "redacted")
    done = redact(filled.spark, loaded(filled), to)
    rows = {row["id"]: row["text"] for row in filled.spark.read.format("delta").load(to).collect()}
    assert rows == {
        "a": "😀 [PER] flew to [LOC].",
        "b": "[PER] met [PER]'s team in [LOC].",
        "c": "Nothing here.",
    }
    assert (done.documents, done.mentions, done.left_out) == (3, 5, 0)
    redact(filled.spark, loaded(filled), to, ["LOC"], "*")
    again = {row["id"]: row["text"] for row in filled.spark.read.format("delta").load(to).collect()}
    assert again["a"] == "😀 Angela Merkel flew to *****."


def test_what_no_run_has_seen_is_not_passed_on(filled: Job) -> None:
    to = str(filled.directory / "redacted")
    filled.texts([("a", "Angela Merkel went to Rome."), *list(TEXTS.items())[1:], ("d", "Bob Dylan sang.")])
    with pytest.raises(SourceError, match=r"2 of 4 rows of .* run the job first"):
        redact(filled.spark, loaded(filled), to)
    assert redact(filled.spark, loaded(filled), to, partly=True).left_out == 2
    assert {row["id"] for row in filled.spark.read.format("delta").load(to).collect()} == {"b", "c"}


def test_tables_half_changed_are_not_believed(filled: Job) -> None:
    """As between a job's two commits: the mentions are of a text that `documents` does not know yet."""
    place = f"delta.`{filled.output}/entities`"
    filled.spark.sql(f"DELETE FROM {place} WHERE doc_id = 'b' AND label = 'LOC'")
    with pytest.raises(SourceError, match="1 of 3 rows"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"))


def test_where_redaction_may_not_write(filled: Job) -> None:
    for to in (str(filled.output / "entities"), str(filled.directory / "texts.parquet")):
        with pytest.raises(OutputError, match="did not write"):
            redact(filled.spark, loaded(filled), to)
    with pytest.raises(SettingsError, match=r"--to: .* lies in the table"):
        redact(filled.spark, loaded(filled), str(filled.output / "entities" / "redacted"))
    with pytest.raises(SettingsError, match="no mention in the tables has the label PERS; there are LOC, PER"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"), ["PERS"])


def on_disk(output: Path, text: str) -> list[Path]:
    return [path for path in output.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_document_is_erased_and_that_is_recorded(filled: Job) -> None:
    with pytest.raises(SourceError, match="has 1 of the documents still"):
        erase(filled.spark, loaded(filled), ["b"])
    filled.texts([(key, text) for key, text in TEXTS.items() if key != "b"])
    assert on_disk(filled.output, "Barack")
    assert erase(filled.spark, loaded(filled), ["b", "never there"]) == {"entities": 3, "documents": 1, "rejects": 0}
    assert not on_disk(filled.output, "Barack")
    assert {row["doc_id"] for row in filled.read("documents").collect()} == {"a", "c"}
    record = {(row["table"], row["rows"]) for row in filled.read("erasures").collect()}
    assert record == {("entities", 3), ("entities", 0), ("documents", 1), ("documents", 0), ("rejects", 0)}
    assert filled.read("erasures").select("doc_id_sha256").distinct().count() == 2
    assert filled.run().mode in ("compare", "none")
    assert {row["doc_id"] for row in filled.read("documents").collect()} == {"a", "c"}


def test_files_of_plain_parquet_are_swapped_by_the_job(job: Job) -> None:
    parquet = "output.format=parquet"
    job.texts(list(TEXTS.items())).run(parquet)
    job.texts([(key, text) for key, text in TEXTS.items() if key != "b"])
    with pytest.raises(OutputError, match="run the job"):
        erase(job.spark, loaded(job, parquet), ["b"])
    job.run(parquet)
    assert erase(job.spark, loaded(job, parquet), ["b"])["entities"] == 0
    assert not on_disk(job.output, "Barack")


def test_mentions_that_are_not_wanted_become_no_rows(filled: Job) -> None:
    everything = filled.read("entities").select("doc_id", "begin", "label", "confidence").collect()
    assert filled.run("entities.labels=[PER]").documents == 3
    assert {row["label"] for row in filled.read("entities").collect()} == {"PER"}
    least = sorted(row["confidence"] for row in everything)[2]
    summary = filled.run(f"entities.min_confidence={least}")
    kept = [row for row in everything if row["confidence"] >= least]
    held = filled.read("entities").select("doc_id", "begin", "label", "confidence").collect()
    assert sorted(held) == sorted(kept)
    assert sum(row["entities"] for row in filled.read("documents").collect()) == sum(summary.by_label.values()) == len(kept)
    filled.run("entities.min_confidence={PER: 1}")
    assert {row["label"] for row in filled.read("entities").collect()} == {"LOC"}
    assert filled.run("entities.min_confidence={PER: 1}").mode == "none"


def test_a_label_that_the_model_does_not_know(main: Callable[..., tuple[int, str]], filled: Job) -> None:
    code, said = main("entities.labels=[PERSON]")
    assert code == 2
    assert "knows no label PERSON; it knows LOC, MISC, ORG, PER" in said


@pytest.mark.parametrize(
    ("entity", "normalized"),
    [("America's", "america"), ("Boys\u2019", "boys"), ("New\u00a0 York\n", "new york"), ("O'Neill", "o'neill"), ("'s", "")],
)
def test_mentions_group_by_what_they_name(job: Job, entity: str, normalized: str) -> None:
    row = table_rows.normalized(job.spark.createDataFrame([(entity,)], "entity string")).collect()[0]
    assert row["entity_normalized"] == normalized


@pytest.mark.parametrize("format_", ["delta", "parquet"])
def test_tables_of_before_get_the_column(filled: Job, format_: str, tmp_path: Path) -> None:
    chosen = (f"output.format={format_}", f"output.path={tmp_path}/older")
    filled.run(*chosen)
    tables = Tables(filled.spark, loaded(filled, *chosen).output)
    older = tables.read("entities").drop("entity_normalized").localCheckpoint()
    if format_ == "delta":
        options = {"overwriteSchema": "true"}
        older.write.format("delta").mode("overwrite").options(**options).save(tables.address("entities"))
        before = tables.history("entities", 1).collect()[0]["version"]
    else:
        older.write.mode("overwrite").partitionBy("label").parquet(tables.address("entities"))
    filled.texts([*TEXTS.items(), ("d", "Bob Dylan sang.")]).run(*chosen)
    found = {row["entity"]: row["entity_normalized"] for row in tables.read("entities").collect()}
    assert found["Paris"] == "paris"
    if format_ == "delta":  # no version has the column empty: a run may die after any
        first = filled.spark.read.format("delta").option("versionAsOf", before + 1).load(tables.address("entities"))
        assert first.where("entity_normalized IS NOT NULL").count() == 5
    assert found["Bob Dylan"] == "bob dylan"


def test_the_commands_say_what_they_did(filled: Job, capsys: pytest.CaptureFixture[str]) -> None:
    options = [item for option in [*filled.options(), f"log={filled.directory}/log"] for item in ("--set", option)]
    assert cli.main(["redact", *options, "--to", f"{filled.directory}/red", "--labels", "PER"]) == 0
    assert "3 documents, 3 mentions masked" in capsys.readouterr().out
    assert cli.main(["erase", *options, "--ids", "a"]) == 3
    assert "the next run would bring them back" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["erase", *options]) == 2
    assert cli.main(["erase", *options, "--ids-file", f"{filled.directory}/none"]) == 2
    assert parser().prog == "entitymill redact"
