"""Test what `entitymill init` proposes for tables of every kind, and that the job accepts the settings file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from entitymill import settings
from entitymill.commands import init
from entitymill.errors import SourceError
from entitymill.run.extraction import extract
from entitymill.settings import json_schema
from entitymill.source import column_proposal
from entitymill.source.reader import open_source

from .conftest import MODELS

SECRET = "Zebulon Quartermain met Emmanuel Macron in Paris."
ARTICLES: dict[str, list[Any]] = {
    "position": [1, 2, 3, 3],
    "title": ["One", "Two", "Three", "Four"],
    "article_id": ["a1", "a2", "a3", "a4"],
    "body": [SECRET * 9, SECRET * 9, "", None],
    "summary": [SECRET * 5] * 4,
    "published": ["2026-01-01", None, "2026-01-03", "2026-01-04"],
    "label": ["x", "y", "z", "w"],
    "tags": [["t"], [], None, ["u", "v"]],
}


def table(rows: int = 4) -> pa.Table:
    return pa.table({name: values[:rows] for name, values in ARTICLES.items()})


def run(*arguments: object) -> int:
    return init.main([str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> Path:
    """Make a temporary directory the current directory, and return its path; the command uses the tests' session."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["parquet", "delta", "table"])
def test_what_is_written_is_taken(here: Path, spark: SparkSession, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    named = "first_articles" if kind == "table" else str(here / "articles")
    if kind == "parquet":
        pq.write_table(table(), here / "articles")
    elif kind == "delta":
        write_deltalake(here / "articles", table())
    else:
        spark.sql(f"CREATE OR REPLACE TEMP VIEW view AS SELECT * FROM parquet.`{_written(here)}`")
        spark.sql("CREATE TABLE first_articles USING delta AS SELECT * FROM view")

    assert run(named, "--to", "conf/mine.yaml") == 0

    told = capfd.readouterr()
    text = (here / "conf" / "mine.yaml").read_text(encoding="utf8")
    assert "Zebulon" not in told.out + told.err + text
    assert "id article_id, text body" in told.out
    assert text.startswith(json_schema.SCHEMA_COMMENT)
    assert (here / "conf" / "schema.json").read_text(encoding="utf8") == json_schema.build_schema()
    found = settings.load(here / "conf" / "mine.yaml", [*MODELS, "recognition.precision=int8"], {})
    assert (found.source.format, found.source.path) == (kind, named)
    assert found.source.passthrough == ("position", "title", "published", "tags")
    if kind == "parquet":  # all settings except the source's are the same for every kind
        few = ["limits.max_reject_ratio=1", "spark.partitions=1", f"output.path={here}/out"]
        loaded = settings.load(here / "conf" / "mine.yaml", [*MODELS, "recognition.precision=int8", *few], {})
        assert extract(spark, loaded, dry_run=True).documents == 3
    rows = open_source(spark, found.source).rows.where("text IS NOT NULL").orderBy("doc_id").collect()
    assert [(row.doc_id, row.text, row.passthrough.position) for row in rows] == [
        ("a1", SECRET * 9, 1),
        ("a2", SECRET * 9, 2),
        ("a3", "", 3),
    ]
    if kind == "table":
        spark.sql("DROP TABLE first_articles")


def _written(here: Path) -> Path:
    pq.write_table(table(), here / "for_view.parquet")
    return here / "for_view.parquet"


def test_the_comments_say_what_else_there_is(here: Path) -> None:
    pq.write_table(table(), "articles.parquet")
    assert run(here / "articles.parquet") == 0
    text = Path("articles.yaml").read_text(encoding="utf8")
    assert "id_column: article_id  # string, unique in the inspected rows; or title (string), label (string)" in text
    assert "characters on average; or summary (245), published (10), title (4), label (1)" in text
    assert (
        "# not in passthrough: summary is string of 245 characters on average, too long to copy to every row of entities"
        in text
    )
    assert "# not in passthrough: label is string, whose name or type cannot be a column of the entities table" in text
    assert f"path: {here}/articles_entities" in text


def test_nothing_is_overwritten(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table(), "articles.parquet")
    Path("articles.yaml").write_text("mine")
    assert run(here / "articles.parquet") == 2
    assert "--to articles.yaml exists already: remove it, or name another file." in capfd.readouterr().err
    assert Path("articles.yaml").read_text() == "mine"
    Path("schema.json").write_text("{}")
    assert run(here / "articles.parquet", "--to", "other.yaml") == 0
    assert Path("schema.json").read_text() == "{}"


def test_columns_that_spark_cannot_read_are_named(here: Path, spark: SparkSession) -> None:
    duckdb.sql(f"COPY (SELECT uuid() AS id, 'k' || i AS name, '{SECRET}' AS text FROM range(3) t(i)) TO 'u.parquet'")
    _, found = column_proposal.propose_columns(spark, f"{here}/u.parquet")
    assert (found.key.name, found.text.name) == ("name", "text")
    assert found.left_out == [("id", "FIXED_LEN_BYTE_ARRAY (UUID), which Spark cannot read")]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ({"n": [1, 2]}, {}, "has no string column"),
        ({"n": [1, 1], "text": ["a", "b"]}, {}, r"no column of a simple type whose values are .* never null in its first 2"),
        ({"n": [1, None], "text": ["a", "b"]}, {}, "no column of a simple type whose values are all different"),
        (
            {"n": [1, 2], "text": ["a", "b"], "tags": [["a"], ["b"]]},
            {"key": "m"},
            r"--id: .* has no column of a simple type m; choose one of n, text\.",
        ),
        ({"n": [1, 2], "text": ["a", "b"]}, {"text": "n"}, r"--text: .* has no string column n; choose one of"),
        ({"n": pa.array([], pa.int64())}, {}, "has no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_said_why(
    here: Path, spark: SparkSession, content: dict[str, object], arguments: dict[str, str], message: str
) -> None:
    pq.write_table(pa.table(content), "t.parquet")
    with pytest.raises(SourceError, match=message):
        column_proposal.propose_columns(spark, f"{here}/t.parquet", **arguments)


def test_the_chosen_id_column_is_not_the_text_too(here: Path, spark: SparkSession) -> None:
    pq.write_table(pa.table({"key": ["a" * 50, "b" * 50], "text": ["a", "b"]}), "t.parquet")
    _, proposal = column_proposal.propose_columns(spark, f"{here}/t.parquet", key="key")
    assert (proposal.key.name, proposal.text.name) == ("key", "text")


def test_bytes_that_are_no_text_are_not_proposed_as_ids(here: Path, spark: SparkSession) -> None:
    """A run would reject almost all rows."""
    content = {"uuid": [bytes([200 + i] * 16) for i in range(3)], "number": [1, 2, 3], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(content), "t.parquet")
    _, proposal = column_proposal.propose_columns(spark, f"{here}/t.parquet")
    assert proposal.key.name == "number"


def test_what_is_not_there_is_said(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for named in ("nowhere", "no.such.table", "/nowhere/at/all"):
        assert run(named) == 3
        assert f"there is nothing at {named}" in capfd.readouterr().err


def ids(*odd: object) -> pa.Table:
    """Return a table of 60 rows, of which the first have the ids `odd`."""
    keys = [*odd, *range(100, 160 - len(odd))]
    return pa.table({"id": pa.array(keys, pa.int64()), "kind": ["a", "b"] * 30, "text": [f"text {i}" for i in range(60)]})


def test_a_few_null_and_repeated_ids_are_said_and_not_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A few null or duplicate ids must cause a note, but no error, because a run would reject their rows and succeed."""
    pq.write_table(ids(None, 1, 1), "t.parquet")
    assert run(here / "t.parquet") == 0
    said = "of 60 rows, 1 without an id and 2 with an id that occurs several times; a run writes these rows to the "
    said += "rejects table"
    assert f"note: id: {said}" in capfd.readouterr().out
    assert f"  id_column: id  # bigint, not unique: {said}\n" in Path("t.yaml").read_text()


def test_too_many_null_and_repeated_ids(here: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    pq.write_table(ids(None, 1, 1, 1), "t.parquet")
    assert run(here / "t.parquet") == 3
    said = "of 60 rows, 1 without an id and 3 with an id that occurs several times; a run rejects these rows, and fails: "
    assert f"(id comes closest: {said}limits.max_reject_ratio allows 0.05 of all rows)" in capfd.readouterr().err
    assert run(here / "t.parquet", "--id", "id") == 0
    assert f"note: id: {said}" in capfd.readouterr().out
    pq.write_table(ids(None, 1, 1, 1).append_column("number", pa.array(range(60))), "t.parquet")
    assert column_proposal.propose_columns(spark, f"{here}/t.parquet")[1].key.name == "number"


def test_the_index_of_pandas_is_not_copied(here: Path, spark: SparkSession) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "__index_level_0__": [3, 4], "n": [1, 2]}), "t.parquet")
    _, found = column_proposal.propose_columns(spark, f"{here}/t.parquet")
    assert (found.key.name, found.passthrough, found.other_keys) == ("n", [], [])
    assert found.left_out == [("__index_level_0__", "bigint, an internal column such as the index of pandas")]
    pq.write_table(pa.table({"text": ["a", "b"], "__index_level_0__": [3, 4]}), "t.parquet")
    with pytest.raises(SourceError, match="no column of a simple type"):
        column_proposal.propose_columns(spark, f"{here}/t.parquet")


def test_what_is_written_works_from_any_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(), "articles.parquet")
    assert run("articles.parquet") == 0
    assert run("./articles.parquet", "--output", "out", "--to", "other.yaml") == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    loaded, other = (settings.load(here / name, (), {}) for name in ("articles.yaml", "other.yaml"))
    assert (loaded.source.path, loaded.output.path) == (f"{here}/articles.parquet", f"{here}/articles_entities")
    assert (other.source.path, other.output.path) == (f"{here}/articles.parquet", f"{here}/out")
    assert (loaded.segmentation.model, loaded.detector) == (None, "sentencex")
    assert loaded.spark.jars == "build/jars"


def test_names_that_yaml_would_take_for_something_else(here: Path, spark: SparkSession) -> None:
    odd = {"no: #1": [1, 2], "a\nb": ["x", "y"], "null": ["a" * 90, "b" * 90], "1": ["p", "q"]}
    pq.write_table(pa.table(odd), "odd.parquet")
    assert run(here / "odd.parquet", "--id", "no: #1") == 0
    loaded = settings.load(here / "odd.yaml", (), {}).source
    assert (loaded.id_column, loaded.text_column, loaded.passthrough) == ("no: #1", "null", ("1",))
