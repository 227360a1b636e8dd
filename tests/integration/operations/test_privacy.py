"""Test the redaction of texts, the erasure of documents, and settings that exclude mentions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from delta_reader import read_delta
from entitymill import cli, settings
from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.run.erasure import erase, find_documents
from entitymill.run_row import RunRow
from entitymill.tables import Tables, publisher
from entitymill.tables.erasure_from_runs import ERASED_CONDITION
from entitymill.tables.redaction import redact
from entitymill.tables.runs import Runs
from entitymill.tables.text_masking import mask_text
from entitymill.workers.engine_choice import open_engine
from integration.conftest import Job, recognized

TEXTS = {
    "a": "😀 Angela Merkel flew to Paris.",
    "b": "Barack Obama met Angela Merkel's team in Berlin.",
    "c": "Nothing here.",
}


ADOPTED = "output.adopt_source=true"
"""Setting for runs into a copied output: the copy's source has another path than the original."""


@pytest.fixture(scope="module")
def prepared(module_job: Job) -> Job:
    module_job.texts(list(TEXTS.items())).run()
    return module_job


@pytest.fixture
def filled(prepared: Job, tmp_path: Path) -> Job:
    """Return a copy of the output for each test; a Delta table can be copied, because its log has relative paths."""
    shutil.copytree(prepared.directory, tmp_path, dirs_exist_ok=True)
    return Job(prepared.spark, tmp_path)


def loaded(job: Job, *overrides: str) -> settings.Settings:
    return settings.load(None, job.options(*overrides), {})


@given(st.text(max_size=30), st.data())
def test_masking_takes_out_the_spans_and_nothing_else(text: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [(begin, end, "PER") for begin, end in zip(edges[::2], edges[1::2], strict=False)]
    kept = [text[end:begin] for end, begin in zip([0, *(s[1] for s in spans)], [*(s[0] for s in spans), None], strict=True)]
    assert mask_text(text, spans[::-1], "<{label}>") == "<PER>".join(kept)
    assert len(mask_text(text, spans, "X")) == len(text)


def test_texts_are_redacted(filled: Job) -> None:
    to = str(filled.directory / "redacted")
    done = redact(filled.spark, loaded(filled), to)
    rows = {row["id"]: row["text"] for row in read_delta(to).to_pylist()}
    assert rows == {
        "a": "😀 [PER] flew to [LOC].",
        "b": "[PER] met [PER]'s team in [LOC].",
        "c": "Nothing here.",
    }
    assert (done.documents, done.mentions, done.left_out) == (3, 5, 0)
    redact(filled.spark, loaded(filled), to, ["LOC"], "*")
    again = {row["id"]: row["text"] for row in read_delta(to).to_pylist()}
    assert again["a"] == "😀 Angela Merkel flew to *****."


def test_html_tags_are_no_part_of_names_and_hide_none(job: Job) -> None:
    """Mentions next to HTML tags, and one around a tag, must be masked in the stored text."""
    html = "source.markup=html"
    job.texts([("a", "<p>Angela Merkel</p><p>met Barack <b>Obama</b> in <i>Berlin</i>.</p>")]).run(html)
    assert job.mentions() == [("a", "Angela Merkel", "PER"), ("a", "Barack <b>Obama", "PER"), ("a", "Berlin", "LOC")]
    redact(job.spark, loaded(job, html), f"{job.directory}/redacted")
    [row] = read_delta(job.directory / "redacted").to_pylist()
    assert row["text"] == "<p>[PER]</p><p>met [PER]</b> in <i>[LOC]</i>.</p>"


def test_what_no_run_has_seen_is_not_passed_on(filled: Job) -> None:
    to = str(filled.directory / "redacted")
    filled.texts([("a", "Angela Merkel went to Rome."), *list(TEXTS.items())[1:], ("d", "Bob Dylan sang.")])
    with pytest.raises(SourceError, match=r"has 4 rows; of these, 2 have no current results in .*: run the job first"):
        redact(filled.spark, loaded(filled), to)
    assert redact(filled.spark, loaded(filled), to, partly=True).left_out == 2
    assert {row["id"] for row in read_delta(to).to_pylist()} == {"b", "c"}


def test_a_file_that_cannot_be_searched_is_not_taken_for_one_without_the_document(filled: Job) -> None:
    """The storage may fail to return an old file; `erase` must not say then that no file contains the document."""
    left = [("a", TEXTS["a"]), ("b", TEXTS["b"])]
    filled.texts(left).run(ADOPTED, "limits.max_removed_ratio=1")
    chosen = loaded(filled, ADOPTED)
    assert find_documents(filled.spark, chosen, ["typo"]).in_old_files is False
    (filled.output / "documents" / "part-unreadable.parquet").write_bytes(b"PAR1 half a file")
    assert find_documents(filled.spark, chosen, ["typo"]).in_old_files is None
    assert find_documents(filled.spark, chosen, ["c"]).in_old_files is True


def test_rejected_rows_are_told_from_those_that_a_run_would_process(filled: Job) -> None:
    to = str(filled.directory / "redacted")
    rejected = pa.table({"id": ["a", "b", "c", "c", None], "text": [*TEXTS.values(), "Twice.", "No id."]})
    filled.texts(rejected).run(ADOPTED, "limits.max_reject_ratio=1")
    with pytest.raises(SourceError, match=r"of these, 3 were rejected .*: correct them .* with --partly"):
        redact(filled.spark, loaded(filled, ADOPTED), to)
    filled.texts(pa.table({"id": [*rejected["id"].to_pylist(), "d"], "text": [*rejected["text"].to_pylist(), "New."]}))
    with pytest.raises(SourceError, match=r"of these, 1 have no current .*; 3 were rejected"):
        redact(filled.spark, loaded(filled, ADOPTED), to)


def test_a_label_that_only_the_model_knows_masks_nothing(filled: Job) -> None:
    to = filled.directory / "redacted"
    options = [item for option in filled.options() for item in ("--set", option)]
    assert cli.main(["redact", *options, "--to", str(to), "--labels", "MISC"]) == 0
    assert {row["id"]: row["text"] for row in read_delta(to).to_pylist()} == TEXTS
    assert cli.main(["redact", *options, "--to", str(to), "--labels", "MICS"]) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("entities.labels=[LOC]", "entities.labels leaves out MISC, so its mentions are not in the tables"),
        (
            "mentions.trim=false",
            "mentions with the label MISC may be missing from the tables, because some documents were processed",
        ),
    ],
)
def test_a_label_is_refused_if_texts_may_have_mentions_that_the_tables_lack(
    filled: Job, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    to = filled.directory / "redacted"
    options = [item for option in filled.options(setting) for item in ("--set", option)]
    assert cli.main(["redact", *options, "--to", str(to), "--labels", "MISC"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not to.exists()


@pytest.mark.deep
def test_a_label_is_refused_while_a_new_model_has_not_processed_all_documents(filled: Job) -> None:
    """As after a run that stopped halfway: the label is in the tables, but not in those documents."""
    filled.spark.sql(f"UPDATE delta.`{filled.output}/documents` SET fingerprint = 'other' WHERE doc_id = 'b'")
    to = str(filled.directory / "redacted")
    with pytest.raises(SettingsError, match="mentions with the label PER may be missing"):
        redact(filled.spark, loaded(filled), to, ["PER"])
    assert redact(filled.spark, loaded(filled), to).mentions == 5
    # Only documents of one fingerprint are copied now, but no mention shows that their model has the label.
    only_c = loaded(filled, "source.where=id = 'c'")
    filled.spark.sql(f"UPDATE delta.`{filled.output}/documents` SET fingerprint = 'older' WHERE doc_id = 'c'")
    with pytest.raises(SettingsError, match="mentions with the label PER may be missing"):
        redact(filled.spark, only_c, to, ["PER"])
    filled.spark.sql(f"UPDATE delta.`{filled.output}/documents` SET fingerprint = 'other' WHERE doc_id = 'c'")
    assert redact(filled.spark, only_c, to, ["PER"]).documents == 1


def test_tables_half_changed_are_not_believed(filled: Job) -> None:
    """If `entities` and `documents` disagree about a document, as between two commits of a run, redaction must fail."""
    place = f"delta.`{filled.output}/entities`"
    filled.spark.sql(f"DELETE FROM {place} WHERE doc_id = 'b' AND label = 'LOC'")
    with pytest.raises(SourceError, match="has 3 rows; of these, 1 have no current"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"))


def test_a_document_without_mentions_is_not_believed_if_a_run_died_after_it_found_some(filled: Job) -> None:
    entities, documents = (f"{filled.output}/{name}" for name in ("entities", "documents"))
    rows = filled.spark.read.format("delta")
    [empty] = rows.load(documents).where("entities = 0").collect()
    found = rows.load(entities).where("doc_id = 'b'").withColumns({"doc_id": F.lit(empty.doc_id), "run_id": F.lit("other")})
    found.write.format("delta").mode("append").save(entities)
    with pytest.raises(SourceError, match="has 3 rows; of these, 1 have no current"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"))
    filled.spark.sql(f"DELETE FROM delta.`{entities}` WHERE run_id = 'other'")
    filled.spark.sql(f"UPDATE delta.`{documents}` SET status = 'pending' WHERE doc_id = '{empty.doc_id}'")
    with pytest.raises(SourceError, match="has 3 rows; of these, 1 have no current"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"))


def test_where_redaction_may_not_write(filled: Job) -> None:
    for to in (str(filled.output / "entities"), str(filled.directory / "texts.parquet")):
        with pytest.raises(OutputError, match="did not write"):
            redact(filled.spark, loaded(filled), to)
    with pytest.raises(SettingsError, match=r"--to: .* is inside the table"):
        redact(filled.spark, loaded(filled), str(filled.output / "entities" / "redacted"))
    with pytest.raises(SettingsError, match=r"--to: 'a..b' is not a valid table .* name: it has an empty level"):
        redact(filled.spark, loaded(filled), "table:a..b")
    with pytest.raises(SettingsError, match="no mention in the tables has the label PERS; labels in the tables: LOC, PER"):
        redact(filled.spark, loaded(filled), str(filled.directory / "redacted"), ["PERS"])


def on_disk(output: Path, text: str) -> list[Path]:
    return [path for path in output.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_document_is_erased_and_that_is_recorded(filled: Job) -> None:
    with pytest.raises(SourceError, match=r"still has 1 of the documents \(for example 'b'\) and the next run"):
        erase(filled.spark, loaded(filled, ADOPTED), ["b"])
    filled.texts([(key, text) for key, text in TEXTS.items() if key != "b"])
    assert on_disk(filled.output, "Barack")
    erased = erase(filled.spark, loaded(filled, ADOPTED), ["b", "never there"])
    assert erased == {"entities": 3, "documents": 1, "rejects": 0, "runs": 0}
    assert not on_disk(filled.output, "Barack")
    assert rows_of(filled, "documents", "doc_id") == {("a",), ("c",)}
    record = rows_of(filled, "erasures", "table", "rows")
    assert record == {("entities", 3), ("entities", 0), ("documents", 1), ("documents", 0), ("rejects", 0), ("runs", 0)}
    assert len(rows_of(filled, "erasures", "doc_id_sha256")) == 2
    again = filled.run(ADOPTED)
    assert (again.mode, again.documents, again.removed) == ("compare", 0, 0)
    assert rows_of(filled, "documents", "doc_id") == {("a",), ("c",)}


def rows_of(job: Job, table: str, *columns: str) -> set[tuple[object, ...]]:
    return {tuple(row[name] for name in columns) for row in read_delta(job.output / table).to_pylist()}


def without(job: Job, doc_id: str) -> Job:
    """Write the source without one document."""
    return job.texts([(key, text) for key, text in TEXTS.items() if key != doc_id])


def versions(job: Job) -> dict[str, int]:
    tables = ("entities", "documents", "rejects", "runs")
    return {name: DeltaTable(str(job.output / name)).version() for name in tables}


def test_nothing_is_erased_by_what_another_source_says(filled: Job) -> None:
    """If the settings name another source, an erasure must fail, because the tables' source may still have the document."""
    without(filled, "b")
    before = versions(filled)
    with pytest.raises(
        SettingsError, match=r"source\.path: the output .* belongs to .*: set source\.path to .*, or output\.adopt"
    ):
        erase(filled.spark, loaded(filled), ["b"])
    assert versions(filled) == before


@pytest.mark.deep
def test_a_condition_hides_no_document_from_an_erasure(filled: Job) -> None:
    hides = "source.where=id <> 'b'"
    with pytest.raises(SourceError, match=r"still has 1 of the documents .*, 1 of them in rows that source\.where excludes"):
        erase(filled.spark, loaded(filled, ADOPTED, hides), ["b"])
    without(filled, "b")
    assert erase(filled.spark, loaded(filled, ADOPTED, hides), ["b"])["documents"] == 1


def test_ids_that_are_nowhere_change_no_row(filled: Job) -> None:
    def rows() -> dict[str, list[str]]:
        return {name: sorted(map(str, filled.read(name).collect())) for name in ("entities", "documents", "rejects")}

    before, files = rows(), set(filled.output.glob("*/**/*.parquet"))
    found = find_documents(filled.spark, loaded(filled, ADOPTED), ["typo"])
    assert found.empty and found.in_old_files is False
    assert erase(filled.spark, loaded(filled, ADOPTED), ["typo"]) == {}
    assert rows() == before
    assert files <= set(filled.output.glob("*/**/*.parquet")), "older versions can still be read"
    assert not (filled.output / "erasures").exists()


@pytest.mark.deep
def test_what_a_dead_run_left_counts_as_old_files(filled: Job) -> None:
    """The temporary table of a dead run must be found and deleted, because it may contain the document's text."""
    (filled.output / "_units_7").mkdir()
    found = find_documents(filled.spark, loaded(filled, ADOPTED), ["typo"])
    assert (found.in_old_files, found.empty) == (True, False)
    erase(filled.spark, loaded(filled, ADOPTED), ["typo"])
    assert not (filled.output / "_units_7").exists()


@pytest.mark.deep
def test_a_document_that_a_run_has_removed_leaves_the_old_files_too(filled: Job) -> None:
    """If a run has already removed the document, an erasure must still delete it from old files."""
    assert without(filled, "b").run(ADOPTED).removed == 1
    assert on_disk(filled.output, "Barack")
    found = find_documents(filled.spark, loaded(filled, ADOPTED), ["b"])
    assert (found.totals()["documents"], found.in_old_files, found.empty) == (0, True, False)
    assert set(erase(filled.spark, loaded(filled, ADOPTED), ["b"]).values()) == {0}
    assert not on_disk(filled.output, "Barack")
    assert find_documents(filled.spark, loaded(filled, ADOPTED), ["b"]).empty


@pytest.mark.deep
def test_an_erasure_looks_again_to_whom_the_output_belongs(filled: Job) -> None:
    """While it waits, a run may give the output to another source, which still has the document."""
    filled.run(ADOPTED)
    without(filled, "b")
    chosen = loaded(filled)
    found = find_documents(filled.spark, chosen, ["b"])
    others = filled.directory / "others"
    others.mkdir()
    Job(filled.spark, others).texts(list(TEXTS.items()))
    filled.run(ADOPTED, f"source.path={others}/texts.parquet")
    with pytest.raises(SettingsError, match=r"belongs to .*others/texts\.parquet"):
        erase(filled.spark, chosen, ["b"], found)


@pytest.mark.deep
def test_brackets_in_paths_are_no_pattern(filled: Job) -> None:
    """Spark's Parquet reader would take out[1] for a pattern that matches out1."""
    shutil.copy(filled.directory / "texts.parquet", filled.directory / "texts1.parquet")
    source, output = filled.directory / "texts[1].parquet", filled.directory / "out[1]"
    paths = (f"source.path={source}", f"output.path={output}")
    rows = {"x": "Marie Curie lived in Warsaw.", "y": "Nobody."}
    for kept in (("x", "y"), ("y",)):
        pq.write_table(pa.table({"id": list(kept), "text": [rows[key] for key in kept]}), source)
        filled.run(*paths)
    assert {row["doc_id"] for row in read_delta(output / "documents").to_pylist()} == {"y"}
    assert on_disk(output, "Curie")
    chosen = loaded(filled, *paths)
    assert find_documents(filled.spark, chosen, ["x"]).in_old_files
    erase(filled.spark, chosen, ["x"])
    assert not on_disk(output, "Curie")


@pytest.mark.deep
def test_messages_that_name_the_document_are_erased(filled: Job) -> None:
    runs = Runs(Tables(filled.spark, loaded(filled).output))
    said = {
        "e1": ("source: the row 'mrs jones' has no text.", None),
        "e2": ("source: the row 'mrs jonesson' has no text.", {"source": {"path": "x", "where": "id <> 'mrs jones'"}}),
    }
    for run_id, (error, chosen) in said.items():
        settings = None if chosen is None else json.dumps(chosen)
        row = RunRow(run_id, datetime.now(timezone.utc), status="failed", mode="none", error=error, settings=settings)
        runs.append_idle(row)
    filled.spark.sql(f"OPTIMIZE delta.`{filled.output}/runs`")
    number = read_delta(filled.output / "runs").num_rows
    assert erase(filled.spark, loaded(filled, ADOPTED), ["mrs jones"])["runs"] == 2
    found = read_delta(filled.output / "runs").to_pylist()
    rows = {row["run_id"]: row for row in found}
    assert len(found) == len(rows) == number + 1  # the erasure adds a row
    assert rows["e1"]["error"] == "erased: the message named an erased document."
    assert rows["e2"]["error"] == said["e2"][0]
    assert json.loads(rows["e2"]["settings"]) == {"source": {"path": "x", "where": ERASED_CONDITION}}
    held = on_disk(filled.output, "mrs jones'")
    assert {path.parent.name for path in held} <= {"_delta_log"}
    assert find_documents(filled.spark, loaded(filled, ADOPTED), ["mrs jones"]).empty


def test_mentions_that_are_not_wanted_become_no_rows(spark: SparkSession) -> None:
    def found(*chosen: str) -> list[tuple[str, int, str, float]]:
        rows = recognized(spark, TEXTS, *chosen)
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
    """Other settings of `entities` must change the fingerprint; tests/stages/test_changes.py tests what runs do then."""
    chosen = ("entities.labels=[PER]", "entities.min_confidence=0.5", "entities.min_confidence={PER: 0.5}")
    prints = {open_engine(filled.spark, loaded(filled, one)).fingerprint for one in chosen}
    [(held,)] = rows_of(filled, "documents", "fingerprint")
    assert len({*prints, held}) == 4


def test_a_label_that_the_model_does_not_know(main: Callable[..., tuple[int, str]], job: Job) -> None:
    job.texts([("a", "They met in Paris.")])
    code, said = main("entities.labels=[PERSON]")
    assert code == 2
    assert "has no label PERSON; its labels are LOC, MISC, ORG, PER" in said
    assert not job.output.exists()


def test_mentions_group_by_what_they_name(spark: SparkSession) -> None:
    normalized = {
        "America's": "america",
        "Boys\u2019": "boys",
        "New\u00a0 York\n": "new york",
        "O'Neill": "o'neill",
        "'s": "",
    }
    mentions = spark.createDataFrame([(entity,) for entity in normalized], "entity string")
    found = publisher.add_normalized(mentions).collect()
    assert {row["entity"]: row["entity_normalized"] for row in found} == normalized


@pytest.mark.deep
def test_the_commands_say_what_they_did(filled: Job, capsys: pytest.CaptureFixture[str]) -> None:
    options = [item for option in [*filled.options(), f"log={filled.directory}/log"] for item in ("--set", option)]
    assert cli.main(["redact", *options, "--to", f"{filled.directory}/red", "--labels", "PER"]) == 0
    assert "3 documents, 3 mentions masked" in capsys.readouterr().out
    assert cli.main(["erase", *options, "--ids", "a"]) == 2
    assert "--yes: nothing was erased, because stdin or stdout" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["erase", *options, "--ids", "a", "--yes"]) == 2
    assert "output.adopt_source=true if" in " ".join(capsys.readouterr().err.split())
    options += ["--set", ADOPTED]
    assert cli.main(["erase", *options, "--ids", "a", "--yes"]) == 3
    assert "run would publish them again" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["erase", *options, "--ids", "typo", "--yes"]) == 0
    assert "None of the 1 ids is in documents, entities, rejects or runs" in " ".join(capsys.readouterr().out.split())
    before = versions(without(filled, "b"))
    assert cli.main(["erase", *options, "--ids", "b", "--dry-run"]) == 0
    assert "would erase 1 documents, 3 mentions, 0 rejects" in " ".join(capsys.readouterr().out.split())
    assert versions(filled) == before
    assert cli.main(["erase", *options]) == 2
    assert "--ids, --ids-file: got 0 ids; name 1 to" in " ".join(capsys.readouterr().err.split())
    missing = f"{filled.directory}/none"
    assert cli.main(["erase", *options, "--ids-file", missing]) == 2
    assert f"--ids-file: {missing} cannot be read" in " ".join(capsys.readouterr().err.split())
