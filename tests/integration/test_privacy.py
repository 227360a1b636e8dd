"""Redacted texts, erased documents, and mentions that are not wanted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from entitymill import cli, settings
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.tables import table_rows
from entitymill.tables.masked_texts import masked
from entitymill.tables.privacy import erase, redact
from entitymill.workers.engine import open_engine

from .conftest import Job, recognised

TEXTS = {
    "a": "😀 Angela Merkel flew to Paris.",
    "b": "Barack Obama met Angela Merkel's team in Berlin.",
    "c": "Nothing here.",
}


@pytest.fixture(scope="module")
def prepared(module_job: Job) -> Job:
    module_job.texts(list(TEXTS.items())).run()
    return module_job


@pytest.fixture
def filled(prepared: Job, tmp_path: Path) -> Job:
    """A copy for each test: a Delta log names its files relative to the table."""
    shutil.copytree(prepared.directory, tmp_path, dirs_exist_ok=True)
    return Job(prepared.spark, tmp_path)


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
    again = filled.run("output.adopt_source=true")  # a copy's source is another file
    assert (again.mode, again.documents, again.removed) == ("compare", 0, 0)
    assert {row["doc_id"] for row in filled.read("documents").collect()} == {"a", "c"}


def test_mentions_that_are_not_wanted_become_no_rows(spark: SparkSession) -> None:
    def found(*chosen: str) -> list[tuple[str, int, str, float]]:
        rows = recognised(spark, TEXTS, *chosen)
        return sorted((key, one.begin, one.label, one.confidence) for key, row in rows.items() for one in row.mentions)

    everything = found()
    least = sorted(confidence for *_, confidence in everything)[2]
    wanted = {
        "entities.labels=[PER]": [one for one in everything if one[2] == "PER"],
        f"entities.min_confidence={least}": [one for one in everything if one[3] >= least],
        "entities.min_confidence={PER: 1}": [one for one in everything if one[2] == "LOC"],
    }
    assert [len(kept) for kept in wanted.values()] == [3, 3, 2]
    for chosen, kept in wanted.items():
        assert found(chosen) == kept


def test_documents_are_done_again_when_other_mentions_are_wanted(filled: Job) -> None:
    """Runs go by the fingerprint: tests/stages/test_changes.py."""
    chosen = ("entities.labels=[PER]", "entities.min_confidence=0.5", "entities.min_confidence={PER: 0.5}")
    prints = {open_engine(filled.spark, loaded(filled, one)).fingerprint for one in chosen}
    held = {row["fingerprint"] for row in filled.read("documents").collect()}
    assert len(held) == 1
    assert len(prints | held) == 4


def test_a_label_that_the_model_does_not_know(main: Callable[..., tuple[int, str]], job: Job) -> None:
    code, said = main("entities.labels=[PERSON]")
    assert code == 2
    assert "knows no label PERSON; it knows LOC, MISC, ORG, PER" in said
    assert not job.output.exists()


@pytest.mark.parametrize(
    ("entity", "normalized"),
    [("America's", "america"), ("Boys\u2019", "boys"), ("New\u00a0 York\n", "new york"), ("O'Neill", "o'neill"), ("'s", "")],
)
def test_mentions_group_by_what_they_name(job: Job, entity: str, normalized: str) -> None:
    row = table_rows.normalized(job.spark.createDataFrame([(entity,)], "entity string")).collect()[0]
    assert row["entity_normalized"] == normalized


def test_the_commands_say_what_they_did(filled: Job, capsys: pytest.CaptureFixture[str]) -> None:
    options = [item for option in [*filled.options(), f"log={filled.directory}/log"] for item in ("--set", option)]
    assert cli.main(["redact", *options, "--to", f"{filled.directory}/red", "--labels", "PER"]) == 0
    assert "3 documents, 3 mentions masked" in capsys.readouterr().out
    assert cli.main(["erase", *options, "--ids", "a"]) == 3
    assert "the next run would bring them back" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["erase", *options]) == 2
    assert "--ids, --ids-file: 0 ids are named" in " ".join(capsys.readouterr().err.split())
    missing = f"{filled.directory}/none"
    assert cli.main(["erase", *options, "--ids-file", missing]) == 2
    assert f"--ids-file: {missing} cannot be read" in " ".join(capsys.readouterr().err.split())
