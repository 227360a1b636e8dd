"""Test the complete job on real texts: tables, schemas, offsets and entities."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable as DeltaReader
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

import entitymill
from entitymill import schemas, settings
from entitymill.commands import evaluate
from entitymill.errors import SessionError, SettingsError
from entitymill.run.summary import Summary
from entitymill.workers.engine_choice import open_engine

from .class_path import class_path_without
from .conftest import MODELS, Job, recognized

GOLDEN = [json.loads(line) for line in (Path(__file__).parents[1] / "golden" / "documents.jsonl").open(encoding="utf8")]
SPEECHES = Path(__file__).parents[2] / "data" / "state_union.parquet"
ODD = {
    "odd0": "😀😀 Angela Merkel met 𝒳 in Paris.",
    "odd1": "Cafe\u0301 owner Zoe\u0308 Kravitz visited Ko\u0308ln.",
    "odd2": "Angela Merkel\r\nmet Emmanuel Macron\r\n\r\nin Paris.",
    "odd3": "Angela\x00Merkel met\x00 Emmanuel Macron in Paris.",
    "odd4": "مرحبا يا باريس. Angela Merkel met Emmanuel Macron. שלום ירושלים.",
    "odd5": "\ufeffAngela Merkel met Emmanuel Macron in Paris\u2028and Berlin.\u00a0",
    "odd6": "word " * 5000 + "Angela Merkel met Emmanuel Macron in Paris",
}
TEXTS = {document["id"]: document["text"] for document in GOLDEN} | ODD


@pytest.fixture(scope="module")
def summary(module_job: Job) -> Summary:
    """Run the job once for all tests of this file, from Python with a settings file, and return the summary."""
    module_job.texts(list(TEXTS.items()))
    config = module_job.directory / "articles.yaml"
    source = {"format": "parquet", "path": f"{module_job.directory}/texts.parquet"}
    config.write_text(yaml.safe_dump({"source": source}))
    options = [option for option in module_job.options() if not option.startswith("source.")]
    return entitymill.extract(config, *options, spark=module_job.spark)


@pytest.fixture(scope="module")
def golden(module_job: Job, summary: Summary) -> Job:
    return module_job


@pytest.fixture(scope="module")
def mentions(golden: Job) -> dict[str, list[Row]]:
    """Return a dict doc_id -> rows of `entities`, in order of their offsets."""
    found = defaultdict(list)
    for row in golden.read("entities").orderBy("doc_id", "begin").collect():
        found[row.doc_id].append(row)
    return found


@pytest.mark.parametrize("document", GOLDEN, ids=lambda d: d["id"])
def test_golden_documents_give_their_entities(mentions: dict[str, list[Row]], document: dict[str, Any]) -> None:
    found = mentions.get(document["id"], [])
    assert [[row.begin, row.end, row.entity, row.label] for row in found] == document["entities"]


def test_every_entity_is_the_text_at_its_offsets(golden: Job, mentions: dict[str, list[Row]]) -> None:
    source = golden.spark.read.parquet(f"{golden.directory}/texts.parquet").withColumnRenamed("id", "doc_id")
    joined = golden.read("entities").join(source, "doc_id")
    kept = joined.where(F.expr("substring(text, begin + 1, end - begin) = entity"))
    every = [row for rows in mentions.values() for row in rows]
    assert kept.count() == joined.count() == len(every) > sum(len(document["entities"]) for document in GOLDEN)
    inside = joined.where("sentence_begin <= begin and end <= sentence_end and sentence_end <= char_length(text)")
    assert inside.count() == joined.count()
    # The offsets must also be valid in Python strings.
    assert all(TEXTS[row.doc_id][row.begin : row.end] == row.entity for row in every)


def test_text_of_any_kind_gives_its_entities(golden: Job, mentions: dict[str, list[Row]]) -> None:
    found = {(key, row.entity) for key in ODD for row in mentions[key]}
    assert {("odd0", "Angela Merkel"), ("odd0", "Paris"), ("odd2", "Emmanuel Macron"), ("odd4", "Angela Merkel")} <= found
    assert ("odd6", "Emmanuel Macron") in found
    [long] = golden.read("documents").where("doc_id = 'odd6'").collect()
    assert (long.tokens, long.split_sentences, long.chars) == (5007, 1, len(ODD["odd6"]))


def test_tables_have_their_schema_with_keys_and_comments(golden: Job) -> None:
    for name, schema in (
        ("entities", schemas.entities_schema([])),
        ("documents", schemas.DOCUMENTS),
        ("rejects", schemas.REJECTS),
        ("runs", schemas.RUNS),
    ):
        found = golden.read(name).schema
        assert [(f.name, f.dataType) for f in found] == [(f.name, f.dataType) for f in schema], name
        assert [f.metadata.get("comment") for f in found] == [f.metadata["comment"] for f in schema], name
        written = json.loads(DeltaReader(str(golden.output / name)).schema().to_json())["fields"]
        assert {f["name"] for f in written if not f["nullable"]} == {f.name for f in schema if not f.nullable}, name


def test_entities_are_partitioned_by_label_in_few_files(golden: Job, mentions: dict[str, list[Row]]) -> None:
    table = DeltaReader(str(golden.output / "entities"))
    assert table.metadata().partition_columns == ["label"]
    labels = {row.label for rows in mentions.values() for row in rows}
    assert labels == {"PER", "ORG", "LOC", "MISC"}
    assert len(table.file_uris()) == len(labels)


def test_documents_claim_what_entities_hold(golden: Job, mentions: dict[str, list[Row]]) -> None:
    documents = golden.read("documents").collect()
    claimed = {row.doc_id: row.entities for row in documents}
    assert claimed == {key: len(mentions.get(key, [])) for key in TEXTS}
    assert {row.status for row in documents} == {"done", "blank"}


def test_the_run_is_recorded_with_its_figures(golden: Job, summary: Summary) -> None:
    run = golden.read("runs").collect()[0]
    labels = {row.label: row["count"] for row in golden.read("entities").groupBy("label").count().collect()}
    assert (run.status, run.documents, run.entities_by_label) == ("done", len(TEXTS), labels)
    # The summary that the caller got must have the same figures.
    assert (summary.run_id, summary.documents, summary.by_label) == (run.run_id, len(TEXTS), labels)
    assert run.sentences == golden.read("documents").agg(F.sum("sentences")).collect()[0][0]
    assert {"source", "recognition", *schemas.PARTS, "idle", "writing", "total"} <= set(run.seconds)
    assert all(run.seconds[part] > 0 for part in schemas.PARTS)
    [known] = golden.read("documents").select("fingerprint").distinct().collect()
    assert run.fingerprint == known.fingerprint == fingerprint(golden.spark)
    assert json.loads(run.settings)["recognition"]["precision"] == "f32"


def test_from_python_a_missing_file_and_a_session_that_does_not_fit_are_named(golden: Job, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        entitymill.extract(tmp_path / "nowhere.yaml")
    config, options = golden.directory / "articles.yaml", golden.options(f"output.path={tmp_path}/out")
    without_delta = class_path_without(golden.spark, "delta-spark")
    with without_delta, pytest.raises(SessionError, match=r"add io\.delta:delta-spark"):
        entitymill.extract(config, *options, spark=golden.spark)
    assert not (tmp_path / "out").exists()


def test_the_jobs_own_table_is_perfect_against_gold(
    golden: Job, mentions: dict[str, list[Row]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(document["id"], begin, end, label) for document in GOLDEN for begin, end, _, label in document["entities"]]
    # There are no gold entities for the odd texts, so the job's own count as gold.
    rows += [(key, row.begin, row.end, row.label) for key in ODD for row in mentions[key]]
    gold = golden.directory / "gold.jsonl"
    lines = [json.dumps(dict(zip(evaluate.KEY, row, strict=True))) for row in rows]
    gold.write_text("\n".join(lines), encoding="utf8")

    code = evaluate.main(["--entities", f"{golden.output}/entities", "--gold", str(gold)])

    printed = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    perfect = {cells[0]: cells[1:4] for cells in printed if len(cells) == 7 and cells[0] != "label"}
    assert code == 0
    assert perfect == dict.fromkeys(("LOC", "MISC", "ORG", "PER", evaluate.ALL), ["1.0000"] * 3)


def test_partition_count_changes_nothing(spark: SparkSession) -> None:
    table = pq.read_table(SPEECHES, columns=["id", "year", "text"]).to_pylist()
    speeches = {row["id"]: row["text"] for row in table if row["year"] == 1945 or row["year"] > 2004}
    one, sixteen = (recognized(spark, speeches, partitions=number) for number in (1, 16))

    assert set(one) == set(sixteen) == set(speeches)
    assert sum(len(row.mentions) for row in one.values()) > 50
    timings = (*(f"{part}_seconds" for part in schemas.TIMES), "mentions")
    for key, row in one.items():
        left, right = (
            {name: value for name, value in found.asDict().items() if name not in timings} for found in (row, sixteen[key])
        )
        assert left == right
        close = [{**m.asDict(), "confidence": pytest.approx(m.confidence, abs=1e-5)} for m in sixteen[key].mentions]
        assert [mention.asDict() for mention in row.mentions] == close


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_faster_precisions_find_nearly_the_same(spark: SparkSession, precision: str) -> None:
    texts = {document["id"]: document["text"] for document in GOLDEN}
    rows = recognized(spark, texts, f"recognition.precision={precision}")
    exact = {(d["id"], *entity) for d in GOLDEN for entity in map(tuple, d["entities"])}
    found = {(key, m.begin, m.end, m.entity, m.label) for key, row in rows.items() for m in row.mentions}
    assert len(exact & found) >= 0.95 * len(exact | found)
    assert fingerprint(spark, f"recognition.precision={precision}") != fingerprint(spark)


def fingerprint(spark: SparkSession, *overrides: str) -> str:
    """Return the fingerprint of a run with these settings; runs recompute documents with another fingerprint."""
    return open_engine(spark, settings.load(None, ["source.path=x", "output.path=y", *MODELS, *overrides], {})).fingerprint
