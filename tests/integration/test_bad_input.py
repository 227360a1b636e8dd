"""Whatever is wrong with the input: a clear error or a reject row, and nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from entitymill import settings
from entitymill.errors import SourceError
from entitymill.source import reader

from .conftest import ROOT, Job

Main = Callable[..., tuple[int, str]]
GOOD = [(f"good{i}", "Angela Merkel met Emmanuel Macron in Paris.") for i in range(20)]


def nothing_written(job: Job) -> bool:
    return not (job.output / "entities").exists() and not (job.output / "documents").exists()


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["source.path=/nowhere/at/all"], 3, r"source.path: nothing is at /nowhere/at/all."),
        (["source.path=nosuchscheme://x/y"], 3, "source.path: nosuchscheme://x/y cannot be reached"),
        (["source.format=delta"], 3, "is not a Delta table; for plain Parquet files set source.format=parquet"),
        (["source.format=table", "source.path=no.such_table"], 3, "source.path: there is no table no.such_table"),
        (["source.text_column=body"], 3, "source.text_column: {texts} has no column body; it has a b, id, n, tags, text."),
        (["source.id_column=key"], 3, "source.id_column: {texts} has no column key"),
        (["source.passthrough=[n, colour]"], 3, "source.passthrough: {texts} has no column colour"),
        (["source.text_column=n"], 3, "source.text_column: n of {texts} is bigint, not string."),
        (["source.id_column=tags"], 3, "source.id_column: tags of {texts} is array<string>"),
        (["source.passthrough=[n, a b]"], 3, "source.passthrough: a b of {texts} cannot be a column of the entities table"),
        (["source.text_column=txt"], 3, "{texts} has no column txt; it has a b, id, n, tags, text; did you mean text?"),
        (["source.where=n >"], 3, "source.where: 'n >' is not a condition on {texts}: syntax error at or near end of input"),
        (["source.where=tag = 1"], 3, "`tag` cannot be resolved. Did you mean one of the following? [`"),
        (["source.path=/data/2026-*/*.parquet"], 3, "nothing is at /data/2026-*/*.parquet. Wildcards are not read: name"),
        (["source.format=table", "source.path=texts_*"], 3, "there is no table texts_*, or it may not be read. Wildcards"),
        (["source.max_chars=none"], 2, "source.max_chars: "),
        (["sauce.path=x"], 2, "sauce is not a setting; did you mean source?"),
        (["model.path=/nowhere"], 5, "model.path: nothing is at /nowhere; name a model bundle."),
        (["model.path=conf"], 5, "model.path: conf has no manifest.json: it is not a model bundle"),
        (["model.path=tests/golden/tiny_models/roberta"], 5, "is a Hugging Face directory, not a model bundle: run prep"),
        (["model.path=models/sentence_detector"], 5, "models/sentence_detector is a saved Spark NLP model, not a model bu"),
        (["model.path=dslim/some-NER"], 5, "model.path: nothing is at dslim/some-NER. If it is a model's name on the Hugg"),
        (["segmentation.model=/nowhere"], 5, "segmentation.model: nothing is at /nowhere"),
        (["segmentation.model=conf"], 5, "segmentation.model: conf is not a saved SentenceDetectorDLModel."),
        (["output.path=/proc/entitymill"], 1, "output.path: /proc/entitymill cannot be written: "),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
def test_the_setting_at_fault_is_named_and_nothing_written(
    job: Job, main: Main, monkeypatch: pytest.MonkeyPatch, overrides: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    tags = pa.array([["t"]], pa.list_(pa.string()))
    job.texts(pa.table({"id": ["a"], "text": ["x"], "n": [1], "a b": [1], "tags": tags}))

    found, error = main(*overrides)

    assert found == code
    assert message.format(texts=f"{job.directory}/texts.parquet") in error
    assert "Traceback" not in error
    assert nothing_written(job)


def test_a_text_file_is_said_how_to_make_a_table_of(job: Job, main: Main) -> None:
    (job.directory / "a.csv").write_text('id,text\n007,"Angela Merkel flew\nto Paris."\n008,NA\n')
    (job.directory / "b").mkdir()
    (job.directory / "b" / "part-0.jsonl").write_text('{"id": "007", "text": "Angela Merkel flew to Paris."}\n')

    for place, kind, file in (("a.csv", "CSV", "a.csv"), ("b", "JSON", "b/part-0.jsonl")):
        for named in ("parquet", "delta"):
            code, error = main(f"source.path={job.directory}/{place}", f"source.format={named}")
            assert code == 3
            assert f"source.path: {job.directory}/{place} is {kind}; make a Parquet file of it, in Python with" in error
        done = re.search(r"pandas\.read_\w+\('(.+?)', .+?\)\.to_parquet\('(.+?)'\)", error)
        assert done and done[1] == f"{job.directory}/{file}"
        # What the sentence says is what is run.
        subprocess.run([sys.executable, "-c", f"import pandas; {done[0]}"], cwd=job.directory, check=True)
        table = pq.read_table(job.directory / done[2])
        assert table["id"].to_pylist()[0] == "007"
        assert {field.type for field in table.schema} <= {pa.string(), pa.large_string()}
    code, error = main("source.format=csv")
    assert code == 2
    assert error.startswith("error: source.format: csv is not read; make a Parquet file of it, in Python with pandas.read_")


def test_a_delta_table_of_another_time_is_called_one(job: Job, main: Main) -> None:
    """Features that this Delta does not know, and a log that nobody can read."""
    place = job.directory / "texts"
    write_deltalake(place, pa.table({"id": ["a"], "text": ["x"]}))
    log = place / "_delta_log" / "00000000000000000000.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    features = ["quantumRows", "variantShredding9"]
    newer = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    log.write_text("\n".join(json.dumps({"protocol": newer} if "protocol" in line else line) for line in lines))

    code, error = main(f"source.path={place}", "source.format=delta")

    assert code == 3
    assert f"source.path: {place} is a Delta table with " in error
    assert all(feature in error for feature in features)
    assert "which Delta 3.3.3 does not know" in error
    assert "source.format=parquet" not in error

    log.write_text("not JSON")
    code, error = main(f"source.path={place}", "source.format=delta")
    assert code == 3
    assert f"source.path: {place} is a Delta table that Delta cannot read: " in error
    assert "source.format=parquet" not in error


def test_columns_that_spark_cannot_read_are_left_out_where_nothing_asks_for_them(job: Job) -> None:
    """Times in nanoseconds, as pandas writes them, and UUIDs, as DuckDB does."""
    told = "select 'd' || i as id, uuid() as key, {'k': uuid()} as held, 'Angela Merkel flew to Paris.' as text, i as n, "
    told += "'2026-01-01'::timestamp_ns as at, i % 2 as part from range(4) t(i)"
    duckdb.sql(f"COPY ({told}) TO '{job.directory}/texts.parquet' (FORMAT parquet, PARTITION_BY (part))")

    def opened(*overrides: str) -> reader.Source:
        return reader.open_source(job.spark, settings.load(None, job.options(*overrides), {}).source)

    rows = opened("source.passthrough=[n, part]", "source.where=part = 0").rows.orderBy("doc_id").collect()
    assert [(row.doc_id, row.text, *row.passthrough) for row in rows] == [
        (f"d{n}", "Angela Merkel flew to Paris.", n, 0) for n in (0, 2)
    ]
    for setting, asked, column, kind in (
        ("passthrough", "[n, at]", "at", "INT64 (TIMESTAMP(NANOS,false))"),
        ("id_column", "key", "key", "FIXED_LEN_BYTE_ARRAY (UUID)"),
        ("where", "AT > '2025-01-01'", "at", "INT64 (TIMESTAMP(NANOS,false))"),
        ("where", "held.k IS NOT NULL", "held", "FIXED_LEN_BYTE_ARRAY (UUID)"),
    ):
        with pytest.raises(SourceError) as refused:
            opened(f"source.{setting}={asked}")
        said = f"source.{setting}: {column} of {job.directory}/texts.parquet is {kind}, which Spark cannot read; "
        assert str(refused.value).startswith(said)
    with pytest.raises(SourceError, match=r"`nn` cannot be resolved. Did you mean one of the following\? \[`n`"):
        opened("source.where=nn = 1")


def test_rows_that_cannot_be_documents_are_rejected_and_the_rest_runs(job: Job) -> None:
    odd = [
        (None, "Angela Merkel in Paris."),
        ("null text", None),
        ("blank", " \n\t "),
        ("empty", ""),
        ("twin", "Angela Merkel in Paris."),
        ("twin", "Emmanuel Macron in Berlin."),
        ("long", "x" * 10_000_000),
    ]
    summary = job.texts([*GOOD, *odd]).run("limits.max_reject_ratio=0.5")

    assert summary.rejects == {"null_id": 1, "null_text": 1, "duplicate_id": 2, "text_too_long": 1}
    assert job.rejects() == sorted(
        [
            (None, "null_id"),
            ("null text", "null_text"),
            ("twin", "duplicate_id"),
            ("twin", "duplicate_id"),
            ("long", "text_too_long"),
        ],
        key=str,
    )
    details = {row.code: row.detail for row in job.read("rejects").collect()}
    assert details["text_too_long"] == "10000000 code points, source.max_chars is 1000000"
    assert details["duplicate_id"] == "2 rows of this run have this id"
    status = {row.doc_id: row.status for row in job.read("documents").collect()}
    assert status == {"blank": "blank", "empty": "blank", **{key: "done" for key, _ in GOOD}}
    assert len(job.mentions()) == 3 * len(GOOD)


def test_a_ten_megabyte_document_runs_where_it_is_allowed(job: Job) -> None:
    hashes = "0123456789abcdef" * 12 + ". "  # one token, one piece
    text = (hashes * 50 + "Angela Merkel met Emmanuel Macron in Paris. ") * (10_000_000 // (50 * len(hashes) + 44))
    job.texts([("big", text)]).run("source.max_chars=20000000", "recognition.precision=int8")
    document = job.read("documents").collect()[0]
    assert (document.chars, document.entities) == (len(text), 3 * text.count("Angela"))
    last = job.read("entities").orderBy("begin").tail(1)[0]
    assert text[last.begin : last.end] == last.entity == "Paris"


def test_text_that_is_not_utf8_is_rejected(job: Job) -> None:
    texts = [b"Angela Merkel in Paris.", b"lone \xed\xa0\x80 surrogate", b"cut \xf0\x9f\x98"]
    # pyarrow checks what it makes; Parquet files of other writers hold such bytes all the same.
    column = pa.Array.from_buffers(pa.string(), 3, pa.array(texts, pa.binary()).buffers())
    job.texts(pa.table({"id": ["fine", "lone", "cut"], "text": column})).run("limits.max_reject_ratio=1")
    assert job.rejects() == [("cut", "malformed_text"), ("lone", "malformed_text")]
    assert {doc for doc, _, _ in job.mentions()} == {"fine"}


def test_too_many_rejects_publish_nothing(job: Job, main: Main) -> None:
    job.texts(GOOD).run()
    before = job.mentions()
    job.texts([*GOOD, ("bad1", None), ("bad2", None)])

    code, error = main()

    assert code == 4
    assert "2 of 22 rows of" in error
    assert "(2 null_text), more than limits.max_reject_ratio 0.05 allows: nothing was published" in error
    assert job.mentions() == before
    assert job.rejects() == [("bad1", "null_text"), ("bad2", "null_text")]
    assert [row.status for row in job.read("runs").orderBy("started_at").collect()] == ["done", "failed"]


def test_a_table_without_a_valid_row_is_refused(job: Job, main: Main) -> None:
    job.texts([("a", None), (None, "x")])
    code, error = main()
    assert (code, "2 of 2 rows" in error) == (4, True)
    assert nothing_written(job)


def test_an_empty_table_gives_empty_tables(job: Job, main: Main) -> None:
    job.texts([])
    code, _ = main()
    assert code == 0
    assert [job.read(name).count() for name in ("entities", "documents", "rejects", "runs")] == [0, 0, 0, 1]


def test_a_damaged_parquet_file_is_named(job: Job, main: Main) -> None:
    job.texts(GOOD)
    path = job.directory / "texts.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\x7f" * 196
    path.write_bytes(content)

    code, error = main()

    assert code == 3
    assert "texts.parquet" in error
    assert nothing_written(job)


def test_a_file_that_is_no_parquet_is_named(job: Job, main: Main) -> None:
    (job.directory / "texts.parquet").write_text("id,text\n1,hello\n")
    code, error = main()
    assert code == 3
    assert "texts.parquet" in error


def test_a_model_with_one_flipped_byte_never_runs(job: Job, main: Main) -> None:
    copied = job.directory / "model"
    shutil.copytree(ROOT / "models" / "demo", copied, ignore=shutil.ignore_patterns("recipe", "README.md"))
    content = bytearray((copied / "openvino_model.bin").read_bytes())
    content[1_000_000] ^= 1
    (copied / "openvino_model.bin").write_bytes(content)
    job.texts(GOOD)

    code, error = main(f"model.path={copied}")

    assert code == 5
    assert f"openvino_model.bin of the model at {copied} has SHA-256" in error
    assert nothing_written(job)


def test_nothing_a_run_logs_or_says_holds_text(job: Job, main: Main) -> None:
    job.texts([("a", "Zebulon Quartermain met Emmanuel Macron in Paris."), ("b", None)])
    said = main("limits.max_reject_ratio=1")[1] + main()[1] + Path(job.directory / "run.log").read_text()
    assert "b" in [doc for doc, _ in job.rejects()]
    assert not [word for word in ("Zebulon", "Quartermain", "Macron") if word in said]
