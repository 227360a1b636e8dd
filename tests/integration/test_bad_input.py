"""Test that bad input leads to a clear error or to rejected rows, and never to partly written tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import functions as F

from entitymill import cli, settings
from entitymill.commands import extract as command
from entitymill.errors import ModelError, SourceError
from entitymill.source import changes, reader
from entitymill.workers.engine_choice import open_engine
from expected_tables import read_tables
from unit import hostile

from .conftest import ROOT, Job

Main = Callable[..., tuple[int, str]]
GOOD = [(f"good{i}", "Angela Merkel met Emmanuel Macron in Paris.") for i in range(20)]


def nothing_written(job: Job) -> bool:
    return not (job.output / "entities").exists() and not (job.output / "documents").exists()


def nothing_published(job: Job) -> bool:
    return all(not DeltaTable(job.output / name).file_uris() for name in ("entities", "documents"))


@pytest.fixture
def overheard(job: Job, capfd: pytest.CaptureFixture[str]) -> Main:
    """Return a function that runs the command `extract`, and returns the exit code and all output (stdout, stderr, log)."""

    def call(*overrides: str) -> tuple[int, str]:
        options = [item for option in job.options(*overrides) for item in ("--set", option)]
        code = command.main([*options, "--set", f"log={job.directory}/run.log"])
        said = capfd.readouterr()
        return code, said.out + said.err + (job.directory / "run.log").read_text()

    return call


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["source.path=/nowhere/at/all"], 3, r"source.path: there is nothing at /nowhere/at/all; check the path."),
        (["source.path=nosuchscheme://x/y"], 3, "source.path: nosuchscheme://x/y cannot be reached"),
        (["source.format=delta"], 3, "is not a Delta table. For plain Parquet files, set `source.format: parquet`"),
        (["source.format=table", "source.path=no.such_table"], 3, "source.path: there is no table no.such_table"),
        (["source.text_column=body"], 3, "source.text_column: {texts} has no column body; it has a b, id, n, tags, text."),
        (["source.id_column=key"], 3, "source.id_column: {texts} has no column key"),
        (["source.passthrough=[n, color]"], 3, "source.passthrough: {texts} has no column color"),
        (["source.text_column=n"], 3, "source.text_column: n of {texts} is bigint, not string."),
        (["source.id_column=tags"], 3, "source.id_column: tags of {texts} is array<string>"),
        (["source.passthrough=[n, a b]"], 3, "source.passthrough: a b of {texts} cannot be a column of the entities table"),
        (["source.text_column=txt"], 3, "{texts} has no column txt; it has a b, id, n, tags, text; did you mean text?"),
        (
            ["source.where=n >"],
            3,
            "source.where: 'n >' is not a valid condition on {texts}: syntax error at or near end of input",
        ),
        (["source.where=tag = 1"], 3, "`tag` cannot be resolved. Did you mean one of the following? [`"),
        (
            ["source.path=/data/2026-*/*.parquet"],
            3,
            "there is nothing at /data/2026-*/*.parquet. Wildcards are not supported: name",
        ),
        (
            ["source.format=table", "source.path=texts_*"],
            3,
            "there is no table texts_*, or you lack permission to read it. Wildcards",
        ),
        (["source.max_chars=none"], 2, "source.max_chars: "),
        (["sauce.path=x"], 2, "sauce is not a setting; did you mean source?"),
        (["model.path=/nowhere"], 5, "model.path: there is nothing at /nowhere; specify a model bundle."),
        (["model.path=conf"], 5, "model.path: conf has no manifest.json: it is not a model bundle"),
        (["model.path=tests/golden/tiny_models/roberta"], 5, "is a Hugging Face directory, not a model bundle: run prep"),
        (["model.path=models/sentence_detector"], 5, "models/sentence_detector is a saved Spark NLP model, not a model bu"),
        (
            ["model.path=dslim/some-NER"],
            5,
            "model.path: there is nothing at dslim/some-NER. If it is a model's name on the Hugg",
        ),
        (["segmentation.model=/nowhere"], 5, "segmentation.model: there is nothing at /nowhere"),
        (["segmentation.model=conf"], 5, "segmentation.model: conf cannot be read as a saved SentenceDetectorDLModel ("),
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
    # The engine reads a detector's directory only after the run has begun, so the table `runs` exists by then.
    assert nothing_written(job) if overrides == ["segmentation.model=conf"] else not job.output.exists()


def test_a_text_file_is_said_how_to_make_a_table_of(job: Job, main: Main) -> None:
    (job.directory / "a.csv").write_text('id,text\n007,"Angela Merkel flew\nto Paris."\n008,NA\n')
    (job.directory / "b").mkdir()
    (job.directory / "b" / "part-0.jsonl").write_text('{"id": "007", "text": "Angela Merkel flew to Paris."}\n')

    for place, kind, file in (("a.csv", "CSV", "a.csv"), ("b", "JSON", "b/part-0.jsonl")):
        for named in ("parquet", "delta"):
            code, error = main(f"source.path={job.directory}/{place}", f"source.format={named}")
            assert code == 3
            assert f"source.path: {job.directory}/{place} is {kind}; convert it to Parquet in Python with" in error
        done = re.search(r"pandas\.read_\w+\('(.+?)', .+?\)\.to_parquet\('(.+?)'\)", error)
        assert done and done[1] == f"{job.directory}/{file}"
        # Run the code exactly as the message shows it.
        subprocess.run([sys.executable, "-c", f"import pandas; {done[0]}"], cwd=job.directory, check=True)
        table = pq.read_table(job.directory / done[2])
        assert table["id"].to_pylist()[0] == "007"
        assert {field.type for field in table.schema} <= {pa.string(), pa.large_string()}
    code, error = main("source.format=csv")
    assert code == 2
    assert error.startswith("error: source.format: csv is not supported; convert it to Parquet in Python with pandas.read_")


def test_a_delta_table_of_another_time_is_called_one(job: Job, main: Main) -> None:
    """If Delta does not know a table's features, or cannot read its log, the error must call the source a Delta table."""
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
    assert "which Delta 3.3.3 does not support" in error
    assert "source.format=parquet" not in error

    log.write_text("not JSON")
    code, error = main(f"source.path={place}", "source.format=delta")
    assert code == 3
    assert f"source.path: {place} is a Delta table that Delta cannot read: " in error
    assert "source.format=parquet" not in error


def test_columns_that_spark_cannot_read_are_left_out_where_nothing_asks_for_them(job: Job) -> None:
    """Nanosecond times, as in pandas files, and DuckDB's UUIDs must cause an error only if a setting names the column."""
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
        said = f"source.{setting}: {column} of {job.directory}/texts.parquet has the Parquet type {kind}, which "
        assert str(refused.value).startswith(said)
    with pytest.raises(SourceError, match=r"`nn` cannot be resolved. Did you mean one of the following\? \[`n`"):
        opened("source.where=nn = 1")


SECRET = b"Zebulon Quartermain flew to Berlin."
REFUSED = [
    (None, SECRET, "null_id"),
    (b"null text", None, "null_text"),
    (b"twin", SECRET, "duplicate_id"),
    (b"twin", b"Emmanuel Macron in Berlin.", "duplicate_id"),
    (b"long", b"x" * 1_000_001, "text_too_long"),
    (b"lone", SECRET + b"\xed\xa0\x80", "malformed_text"),
    (b"cut", SECRET + b"\xf0\x9f\x98", "malformed_text"),
    (b"bad\xff", SECRET, "malformed_id"),
]
BLANK = [(b"blank", b" \n\t "), (b"empty", b"")]


def strings(values: Iterable[bytes | None]) -> pa.Array:
    """Return a string array of any bytes, even invalid UTF-8, which pyarrow would refuse but some Parquet files contain."""
    return pa.array(values, pa.binary()).view(pa.string())


def silent(said: str) -> bool:
    return not any(word in said for word in ("Zebulon", "Quartermain", "Macron", "Merkel"))


def test_rows_that_cannot_be_documents_are_rejected_and_the_rest_runs_without_a_word_of_text(
    job: Job, overheard: Main
) -> None:
    # A first run and a run that compares all rows find invalid rows in different ways, so test both.
    for text in ("Angela Merkel met Emmanuel Macron in Paris.", "Emmanuel Macron met Angela Merkel in Paris."):
        good = [(key.encode(), text.encode()) for key, _ in GOOD]
        ids, texts = zip(*good, *BLANK, *(row[:2] for row in REFUSED), strict=True)
        job.texts(pa.table({"id": strings(ids), "text": strings(texts)}))

        code, said = overheard("limits.max_reject_ratio=0.5")

        assert code == 0
        assert silent(said)
        rejects = job.read("rejects").select(F.col("doc_id").cast("binary").alias("id"), "code", "detail").collect()
        listed = Counter((None if row.id is None else bytes(row.id), row.code) for row in rejects)
        assert listed == Counter((key, code) for key, _, code in REFUSED)
        details = {row.code: row.detail for row in rejects}
        assert details["text_too_long"] == "1000001 code points, source.max_chars is 1000000"
        assert details["duplicate_id"] == "2 rows that this run read have this id"
        status = {row.doc_id: row.status for row in job.read("documents").collect()}
        assert status == {"blank": "blank", "empty": "blank", **{key: "done" for key, _ in GOOD}}
        assert len(job.mentions()) == 3 * len(GOOD)
    runs = job.read("runs").orderBy("started_at").collect()
    assert [(row["mode"], row["rejects"]) for row in runs] == [("first", len(REFUSED)), ("compare", len(REFUSED))]


def test_a_ten_megabyte_document_is_recognized_where_it_is_allowed(job: Job) -> None:
    hashes = "0123456789abcdef" * 12 + ". "  # one token, one piece
    text = (hashes * 50 + "Angela Merkel met Emmanuel Macron in Paris. ") * (10_000_000 // (50 * len(hashes) + 44))
    options = job.texts([("big", text)]).options("source.max_chars=20000000", "recognition.precision=int8")
    loaded = settings.load(None, options, {})
    documents = changes.select_all_documents(reader.open_source(job.spark, loaded.source), changes.Mode.FIRST).documents
    [found] = open_engine(job.spark, loaded).load()(documents).collect()
    assert (found.chars, len(found.mentions)) == (len(text), 3 * text.count("Angela"))
    last = max(found.mentions, key=lambda mention: mention.begin)
    assert text[last.begin : last.end] == last.entity == "Paris"


def test_too_many_rejects_publish_nothing_and_the_list_of_runs_says_so(
    job: Job, overheard: Main, capfd: pytest.CaptureFixture[str]
) -> None:
    listing = ["runs", *(word for option in job.options(f"log={job.directory}/log") for word in ("--set", option))]
    assert cli.main(listing) == 1
    said = capfd.readouterr().err.splitlines()[0]
    assert said == f"error: output: no entity tables at {job.output}; check output.path or output.schema."
    job.texts(GOOD).run()
    before = read_tables(job.output)
    job.texts([*GOOD, ("new", GOOD[0][1]), ("bad1", None), ("bad2", None)])

    code, said = overheard()

    assert code == 4
    assert "2 of 23 rows of" in said
    assert "(2 null_text), more than `limits.max_reject_ratio: 0.05` allows. Nothing was published" in said
    assert silent(said)
    assert read_tables(job.output) == before
    assert job.rejects() == [("bad1", "null_text"), ("bad2", "null_text")]

    assert cli.main([*listing, "--json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(row["status"], row["exit_code"]) for row in rows] == [("failed", 4), ("done", 0)]
    assert "were rejected" in rows[0]["error"]
    assert cli.main([*listing, "--last", "2"]) == 0
    shown = capfd.readouterr().out
    assert shown.index(rows[0]["run_id"]) < shown.index(rows[1]["run_id"])
    assert f"{rows[0]['run_id']}: {rows[0]['error']}" in shown
    assert cli.main([*listing, "--last", "1"]) == 0
    assert rows[1]["run_id"] not in capfd.readouterr().out


def test_a_table_without_a_valid_row_is_refused(job: Job, main: Main) -> None:
    job.texts([("a", None), (None, "x")])
    code, error = main()
    assert (code, "2 of 2 rows" in error) == (4, True)
    assert nothing_published(job)


def test_an_empty_table_gives_empty_tables(job: Job, main: Main) -> None:
    job.texts([])
    code, _ = main()
    assert code == 0
    assert [job.read(name).count() for name in ("entities", "documents", "rejects", "runs")] == [0, 0, 0, 1]


def test_a_damaged_parquet_file_is_named(job: Job, overheard: Main) -> None:
    job.texts(GOOD)
    path = job.directory / "texts.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\x7f" * 196
    path.write_bytes(content)

    code, said = overheard()

    assert code == 3
    assert "texts.parquet is damaged, or not of the format that source.format names." in said
    assert silent(said)
    assert nothing_published(job)


def test_a_file_that_is_no_parquet_is_named(job: Job, main: Main) -> None:
    (job.directory / "texts.parquet").write_text("id,text\n1,hello\n")
    code, error = main()
    assert code == 3
    assert f"source.path: {job.directory}/texts.parquet cannot be read as parquet: one of its files is damaged" in error
    assert not job.output.exists()


def test_a_model_with_one_flipped_byte_never_runs(job: Job) -> None:
    copied = job.directory / "model"
    shutil.copytree(ROOT / "models" / "demo", copied, ignore=shutil.ignore_patterns("recipe", "README.md"))
    content = bytearray((copied / "openvino_model.bin").read_bytes())
    content[1_000_000] ^= 1
    (copied / "openvino_model.bin").write_bytes(content)
    loaded = settings.load(None, job.options(f"model.path={copied}"), {})
    with pytest.raises(ModelError, match=rf"openvino_model\.bin of the model at {copied} has SHA-256"):
        open_engine(job.spark, loaded).load()


def test_a_label_that_cannot_name_a_partition_is_refused_on_the_driver(job: Job) -> None:
    """If a label is too long for a directory name, the driver must refuse the model; test_bundle.py tests workers."""
    copied = hostile.endless_label(job.directory / "model")
    loaded = settings.load(None, job.options(f"model.path={copied}"), {})
    with pytest.raises(ModelError, match=r"^Label 1 \(counted from 0\) of .*labels\.json of the model, 'PER"):
        open_engine(job.spark, loaded).load()
