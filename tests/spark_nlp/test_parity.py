"""Test that both engines give the same results: Spark NLP in the JVM, and OpenVINO with the encoding of Spark NLP."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from entitymill import settings
from entitymill_sparknlp import pipeline_stages

from .conftest import ROOT, Job

SENTENCES = 1_300
SPEECH_CHARS = 200_000
LONG = 50_000
NASTY = [
    "",
    "   ",
    "\n\n\t",
    ".",
    "...",
    "U.K. U.S.A. e.g. i.e. Ph.D. 3.14 1,000,000",
    "The well-known Coca-Cola-sponsored Franco-German talks of Jean-Luc O'Neill-Smith.",
    "(Angela Merkel) [Berlin] {Paris} <Rome> \"Madrid\" 'Oslo' `Bern`",
    "São Paulo, Zürich, Kraków, Đà Nẵng, Łódź and İstanbul are cities.",
    "Cafe\u0301 de Flore and \u0301 alone, a\u0301\u0302\u0303b.",
    "😀 Angela 👩‍👩‍👧‍👦 Merkel 🇩🇪 in 𝒳𝒴 and 𐄀 with 𒑰 marks.",
    "북한 김정은 위원장은 평양에서 Donald Trump 대통령을 만났다. 한국어 문장 끝.",
    "東京で安倍晋三首相がバイデン大統領と会談した。 Tokyo 東京 Abe",
    "محمد صلاح يلعب في ليفربول. \u200fMo Salah\u200f plays in Liverpool.",
    "zero\u200bwidth soft\u00adhyphen nb\u00a0space thin\u2009space line\u2028separator BOM\ufeff here",
    "tabs\tand\r\nCRLF\rlines\x0bvertical\x0cform",
    "control \x01\x02 chars \x7f\x85\x9f replacement \ufffd\ufffd end",
    "a" * 300 + " Angela Merkel " + "b" * 201 + " " + "c" * 200,
    "Angela Merkel met Emmanuel Macron in Paris and " * 40 + "left.",
    "word " * 125 + "Paris Berlin Rome Madrid. Angela Merkel came.",
    "antidisestablishmentarianism " * 60 + "Paris.",
    "¡Hola! ¿Qué tal, José? «Oui» — dit-il… “Nein”, said Müller‽",
    "ﬁnance ﬀ ligatures ½ ² ™ № ㎏ Ａｎｇｅｌａ Ⅷ",
    "Mr. Smith Jr. vs. Acme Inc. et al. No. 5 St. Louis a.m. p.m. Jan. 3",
    "http://example.com/a?b=c&d=e#f user@example.org @handle #tag $100 50% C++ C# A/B",
    "ALL CAPS ANGELA MERKEL and lower angela merkel and mIxEd aNgElA",
    "[CLS] [SEP] [PAD] [UNK] [MASK] ##ing # ##",
]


def texts() -> pa.Table:
    """Return a source with the texts of NASTY, one document of LONG characters, and whole speeches."""
    speeches = pq.read_table(ROOT / "data" / "state_union.parquet", columns=["id", "text"]).to_pydict()
    rows = [(f"nasty-{i}", text) for i, text in enumerate(NASTY)]
    written = "\n\n".join(speeches["text"])
    rows.append(("long", written[-LONG:]))
    for doc_id, text in zip(speeches["id"], speeches["text"], strict=True):
        if sum(len(row[1]) for row in rows) < SPEECH_CHARS:
            rows.append((doc_id, text))
    return pa.table({"id": [row[0] for row in rows], "text": [row[1] for row in rows]})


@pytest.fixture(scope="module")
def both(module_job: Job, saved_demo: Path) -> dict[str, Job]:
    jobs = {}
    for name, overrides in {
        "sparknlp": ("recognition.engine=sparknlp", f"recognition.sparknlp_model={saved_demo}"),
        "openvino": ("recognition.encoding=sparknlp",),
    }.items():
        directory = module_job.directory / name
        directory.mkdir()
        jobs[name] = Job(module_job.spark, directory).texts(texts())
        jobs[name].run("output.annotations=true", *overrides)
    return jobs


@pytest.fixture(scope="module")
def pairs(both: dict[str, Job]) -> DataFrame:
    """Return a frame with doc_id, and with the annotations of Spark NLP's engine (`a`) and of OpenVINO's (`b`)."""
    a, b = (both[name].read("annotations").select("doc_id", "ner", "ner_chunk") for name in ("sparknlp", "openvino"))
    joined = a.select("doc_id", F.struct("ner", "ner_chunk").alias("a")).join(
        b.select("doc_id", F.struct("ner", "ner_chunk").alias("b")), "doc_id"
    )
    return joined.persist()


def differing(pairs: DataFrame, column: str, unequal: str) -> list[str]:
    """Return the ids of up to 20 documents whose annotations differ, or differ in number."""
    condition = (
        f"size(a.{column}) != size(b.{column}) OR exists(zip_with(a.{column}, b.{column}, (x, y) -> {unequal}), d -> d)"
    )
    return [row.doc_id for row in pairs.where(condition).select("doc_id").limit(20).collect()]


def test_the_texts_are_enough(both: dict[str, Job], pairs: DataFrame) -> None:
    counts = both["openvino"].read("documents").agg(F.sum("sentences"), F.sum("tokens"), F.sum("entities")).collect()[0]
    assert counts[0] >= SENTENCES
    assert counts[1] >= 20 * SENTENCES
    assert counts[2] >= SENTENCES // 4
    assert pairs.count() == texts().num_rows


def test_every_token_has_the_same_tag(pairs: DataFrame) -> None:
    same = "x.begin != y.begin OR x.end != y.end OR x.result != y.result OR x.annotatorType != y.annotatorType"
    assert differing(pairs, "ner", same) == []


def test_every_probability_of_every_label_is_the_same(pairs: DataFrame) -> None:
    names = [
        f"'{label}'" for label in ("O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "ORG", "LOC", "MISC")))
    ]
    apart = f"exists(array({', '.join(names)}), n -> NOT coalesce(abs(x.metadata[n] - y.metadata[n]) < 1e-4, false))"
    assert differing(pairs, "ner", apart) == []


def test_the_other_metadata_are_the_same(pairs: DataFrame) -> None:
    apart = "x.metadata['word'] != y.metadata['word'] OR x.metadata['sentence'] != y.metadata['sentence']"
    assert differing(pairs, "ner", f"size(x.metadata) != size(y.metadata) OR {apart}") == []


def test_mentions_are_equal(both: dict[str, Job]) -> None:
    a, b = (both[name].read("entities").drop("run_id", "processed_at", "model", "confidence") for name in both)
    assert_df_equality(a, b, ignore_row_order=True, ignore_nullable=True)


def test_documents_are_equal(both: dict[str, Job]) -> None:
    a, b = (both[name].read("documents").drop("run_id", "processed_at", "fingerprint", "source_version") for name in both)
    assert_df_equality(a, b, ignore_row_order=True, ignore_nullable=True)
    assert a.where("split_sentences > 0").count() >= 2


def test_chunks_are_those_of_spark_nlps_ner_converter(spark: SparkSession, both: dict[str, Job], saved_demo: Path) -> None:
    """The expected chunks are those of the model card's pipeline, followed by NerConverter."""
    from sparknlp.annotator import NerConverter  # noqa: PLC0415

    job = both["openvino"]
    speech = texts()["id"][-1].as_py()
    rows = spark.read.parquet(str(job.directory / "texts.parquet")).where(f"id LIKE 'nasty%' OR id = '{speech}'")
    saved = pipeline_stages.inspect_model(spark, str(saved_demo))
    loaded = settings.load(None, job.options(), {})
    around = pipeline_stages.build_stages(spark, loaded.detector, loaded.detector_model)
    tagged = pipeline_stages.load_pipeline(saved, around).stages.transform(rows)
    chunks = NerConverter().setInputCols(["_sentence", "_token", "_ner"]).setOutputCol("chunk").transform(tagged)
    expected = chunks.select(F.col("id").alias("doc_id"), F.col("chunk").alias("expected"))
    pairs = job.read("annotations").join(expected, "doc_id")

    same = "x.begin = y.begin AND x.end = y.end AND x.result = y.result AND x.annotatorType = y.annotatorType"
    for name in ("sentence", "chunk", "entity"):
        same += f" AND x.metadata['{name}'] = y.metadata['{name}']"
    same += " AND size(x.metadata) = size(y.metadata) AND abs(x.metadata['confidence'] - y.metadata['confidence']) < 1e-4"
    unequal = f"size(ner_chunk) != size(expected) OR exists(zip_with(ner_chunk, expected, (x, y) -> NOT ({same})), d -> d)"
    assert [row.doc_id for row in pairs.where(unequal).select("doc_id").collect()] == []
    assert pairs.count() == len(NASTY) + 1


def test_columns_have_spark_nlps_schema(both: dict[str, Job]) -> None:
    found = both["openvino"].read("annotations").schema
    assert {name: found[name].metadata for name in ("ner", "ner_chunk")} == {
        "ner": {"annotatorType": "named_entity"},
        "ner_chunk": {"annotatorType": "chunk"},
    }
    assert found["ner"].dataType == both["sparknlp"].read("annotations").schema["ner"].dataType
