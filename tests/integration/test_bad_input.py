"""Whatever is wrong with the input: a clear error or a reject row, and nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

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
        (["source.where=n >"], 3, "source.where: 'n >' is not a condition on {texts}."),
        (["source.where=colour = 1"], 3, "source.where: 'colour = 1' is not a condition on {texts}."),
        (["source.max_chars=none"], 2, "source.max_chars: "),
        (["sauce.path=x"], 2, "sauce is not a setting; did you mean source?"),
        (["model.path=/nowhere"], 5, "model.path: nothing is at /nowhere; name a model bundle."),
        (["model.path=conf"], 5, "model.path: conf has no manifest.json: it is not a model bundle"),
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
