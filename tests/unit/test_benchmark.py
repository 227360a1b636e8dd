import json
from pathlib import Path

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
    ],
)
def test_texts_that_cannot_be_measured_on_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert benchmark.main(["--texts", str(tmp_path / name)]) == 3
    assert message in capsys.readouterr().err
