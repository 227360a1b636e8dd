import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entitymill.commands import benchmark
from entitymill.commands.benchmark import BenchmarkResult, recommend
from entitymill.recognition.tagger import Precision


def figure(precision: Precision, rate: float, f1: float | None) -> BenchmarkResult:
    return BenchmarkResult(precision, rate, rate, 1.0, None, f1)


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        ([figure("f32", 100, 0.8), figure("bf16", 150, None), figure("int8", 300, 0.797)], "int8"),
        ([figure("f32", 100, 0.8), figure("bf16", 150, 0.8), figure("int8", 300, 0.7)], "bf16"),
        ([figure("f32", 100, 0.8), figure("int8", 90, 0.8)], "f32"),  # as on a processor without VNNI
        ([figure("f32", 100, None), figure("bf16", 101, None)], "bf16"),
    ],
)
def test_the_fastest_of_the_exact_precisions_is_recommended(figures: list[BenchmarkResult], chosen: str) -> None:
    assert recommend(figures).precision == chosen


def test_each_precision_of_the_carried_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("Angela Merkel flew to Paris. She met Emmanuel Macron.\n" * 40, encoding="utf8")
    options = ["--texts", str(tmp_path / "texts.txt"), "--seconds", "1", "--price-per-core-hour", "0.05", "--json"]
    assert benchmark.main(options) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["precisions"]) == ["f32", "bf16", "int8"]
    for row in said["precisions"].values():
        assert 0 < row["median_sentences_per_cpu_second"] <= row["sentences_per_cpu_second"]
        assert row["price"] == pytest.approx(0.05 * row["core_hours"])
    assert said["recommended"] in said["precisions"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("texts.parquet", b"PAR", "cannot be read: name a Parquet file"),
        ("a.txt", b"\xff", "cannot be read"),
        ("b.txt", b"\n", "no text"),
        ("c.txt", " \u00a0\n\t\n \n".encode(), "no text"),
    ],
)
def test_texts_that_cannot_be_measured_on_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert benchmark.main(["--texts", str(tmp_path / name)]) == 3
    assert message in capsys.readouterr().err


def test_texts_without_a_sentence_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "list_precisions", lambda _: ("f32",))  # one process is enough
    (tmp_path / "texts.txt").write_bytes(b"\x01\n\x02\n")
    assert benchmark.main(["--texts", str(tmp_path / "texts.txt")]) == 3
    assert "no sentence was found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1, 2]}, "no text: name a Parquet file with texts in the column `text`"),
        ({"text": [" ", None, "\n"]}, "no text"),
        ({"text": [b"They met in Paris."]}, "no text"),
        ({"text": pa.array([], pa.string())}, "no text"),
        ({"body": ["They met in Paris."]}, "cannot be read: name a Parquet file with a column `text`, or"),
    ],
)
def test_a_table_without_texts_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "texts.parquet")
    assert benchmark.main(["--texts", str(tmp_path / "texts.parquet")]) == 3
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("length", [100, 50_000, 1_000_000])
def test_texts_are_read_only_as_far_as_they_are_needed(tmp_path: Path, length: int) -> None:
    """What follows is damaged."""
    texts = [None, "", " ", *["x" * length] * (2 * benchmark.CHARACTERS // length + 1), *[None] * 64]
    table = pa.table({"text": texts})
    pq.write_table(table, tmp_path / "one.parquet", compression="none", use_dictionary=False)
    with pq.ParquetWriter(tmp_path / "two.parquet", table.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(2):
            writer.write_table(table)
    second = pq.ParquetFile(tmp_path / "two.parquet").metadata.row_group(1).column(0)
    content = bytearray((tmp_path / "two.parquet").read_bytes())
    at = second.data_page_offset
    content[at : at + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    (tmp_path / "two.parquet").write_bytes(content)
    with pytest.raises((pa.ArrowException, OSError)):
        pq.read_table(tmp_path / "two.parquet")
    (tmp_path / "a.txt").write_bytes("\n".join(filter(None, texts)).encode() + b"\n" * 100_000 + b"\xff")

    for name in ("one.parquet", "two.parquet", "a.txt"):
        found = benchmark._read_texts(tmp_path / name)
        assert sum(map(len, found)) == benchmark.CHARACTERS
        assert set("".join(found)) == {"x"}
        assert len(found) == max(1, -(-benchmark.CHARACTERS // length))
