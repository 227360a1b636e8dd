"""Documents to blocks to sentences and tokens."""

from __future__ import annotations

import pytest
from entitymill.segmentation import BLOCK_CHARS, CHUNK_CHARS, blocks
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from entitymill import segmentation

from .conftest import Job

TEXTS = {
    "short": "One. Two.",
    "empty": "",
    "paragraphs": ("x" * 90 + "\n \n") * 1500,
    "sentences": ("😀 word. " * 11 + "The Mr. Smith of it. And ") * 500,
    "wrapped": ("Some words of a long line\nthat goes on. " * 3 + "Then\nnothing.\n") * 200,
    "lines": ("x" * 90 + "\n") * 1500,
    "blanks": "word " * 30_000,
    "stretch": "word " * 5_000,
    "solid": "𝒳" * (2 * BLOCK_CHARS + 7),
    "just": "y" * CHUNK_CHARS,
}


@pytest.fixture(scope="module")
def cut(spark: SparkSession) -> dict[str, list[str]]:
    rows = blocks(spark.createDataFrame(list(TEXTS.items()), "doc_id string, text string")).collect()
    for row in rows:
        assert row.blocks == sum(other.doc_id == row.doc_id for other in rows)
    assert [row.block for row in rows] == [i for key in TEXTS for i in range(sum(row.doc_id == key for row in rows))]
    return {key: [row.text for row in rows if row.doc_id == key] for key in TEXTS}


@pytest.mark.parametrize("key", TEXTS)
def test_blocks_joined_are_the_text_and_none_is_long(cut: dict[str, list[str]], key: str) -> None:
    assert "".join(cut[key]) == TEXTS[key]
    assert max(map(len, cut[key])) <= BLOCK_CHARS + CHUNK_CHARS
    assert (len(cut[key]) == 1) == (len(TEXTS[key]) <= CHUNK_CHARS or key == "stretch")
    assert all(cut[key]) or key == "empty"


@pytest.mark.parametrize(
    ("key", "end", "chars"),
    [
        ("paragraphs", "\n \n", 2 * CHUNK_CHARS),
        ("sentences", ("of it. ", "word. "), 2 * CHUNK_CHARS),
        ("wrapped", ("goes on. ", "nothing.\n"), 2 * CHUNK_CHARS),
        ("lines", "\n", BLOCK_CHARS + CHUNK_CHARS),
        ("blanks", " ", BLOCK_CHARS + CHUNK_CHARS),
    ],
)
def test_blocks_end_where_a_sentence_does(
    cut: dict[str, list[str]], key: str, end: str | tuple[str, ...], chars: int
) -> None:
    assert all(block.endswith(end) for block in cut[key][:-1])
    assert max(map(len, cut[key])) <= chars


def test_a_long_document_has_the_sentences_of_its_paragraphs(job: Job) -> None:
    paragraph = "Angela Merkel met Emmanuel Macron in Paris. They discussed Ukraine.\n\n"
    text = paragraph * (5 * CHUNK_CHARS // len(paragraph))
    job.texts([("long", text), ("one", paragraph)]).run()
    per_paragraph = job.read("entities").where("doc_id = 'one'").count()
    found = job.read("entities").where("doc_id = 'long'")
    assert found.count() == per_paragraph * text.count("Angela")
    assert found.select(F.max("sentence_id")).collect()[0][0] == 2 * text.count("Angela") - 1
    assert all(text[row.begin : row.end] == row.entity for row in found.collect())


def test_only_offsets_and_text_leave_the_segmentation(spark: SparkSession) -> None:
    documents = spark.createDataFrame([("a", "One. Two.")], "doc_id string, text string")
    found = segmentation.segment(documents, segmentation.SentenceDetector())
    assert dict(found.dtypes) == {
        "doc_id": "string",
        "blocks": "int",
        "block": "int",
        "text": "string",
        **dict.fromkeys(("sentence_begin", "sentence_end", "token_begin", "token_end"), "array<int>"),
    }
