import json
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from entitymill.errors import SettingsError
from entitymill_models import precision_loss

ROWS = [{"tokens": ["Angela", "slept", "."], "tags": ["B-PER", "O", "O"]}, {"tokens": ["No"], "tags": ["O"]}]


@pytest.mark.parametrize("kind", ["parquet", "directory", "delta", "jsonl"])
def test_a_sample_is_read_from_any_kind_of_table(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("rows.jsonl" if kind == "jsonl" else "rows")
    table = pa.Table.from_pylist(ROWS)
    if kind == "delta":
        deltalake.write_deltalake(str(path), table)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        path.mkdir()
        pq.write_table(table, path / "part.parquet")
        path = path / "part.parquet" if kind == "parquet" else path

    found = precision_loss.read_sample(path, "--sample")

    assert found.sentences == [row["tokens"] for row in ROWS] and found.gold == [row["tags"] for row in ROWS]


def test_texts_are_split_into_sentences_and_words(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "1", "text": "Dr. Who came. It was 5!\\n\\nA title"}\n{"id": "2", "text": null}\n')
    found = precision_loss.read_sample(path, "--sample")
    assert found.gold is None
    assert found.sentences == [["Dr", "."], ["Who", "came", "."], ["It", "was", "5", "!"], ["A", "title"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "cannot be read as a Parquet, Delta or JSON-lines table"),
        ('["a"]', "cannot be read as a Parquet, Delta or JSON-lines table"),
        ('{"a": "x", "b": "y"}', "needs a column named `tokens` or `text`, or exactly one column of strings"),
        ('{"tokens": "x"}', "column tokens"),
        ('{"tokens": ["x"], "tags": []}', "column tags"),
        ('{"text": " "}', "contains no sentence"),
    ],
)
def test_tables_that_are_no_sample_say_why(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(SettingsError, match=message):
        precision_loss.read_sample(path, "--sample")


def test_a_spread_covers_the_whole_and_never_repeats() -> None:
    everything = precision_loss.Sample([[str(i)] for i in range(10)], None)
    assert everything.select_evenly(3).sentences == [["0"], ["3"], ["6"]]
    assert everything.select_evenly(20) == everything
    assert everything.exclude(everything.select_evenly(3)).sentences == [[str(i)] for i in (1, 2, 4, 5, 7, 8, 9)]


def test_loss_is_taken_from_the_worst_precision_and_from_gold_where_there_is_any() -> None:
    agreement = {"f32": 0.99, "int8": 0.9}
    assert precision_loss.Scores(1, 1, {}, {}, agreement).compute_loss() == pytest.approx(0.1)
    with_gold = precision_loss.Scores(1, 1, {"f32": 0.8}, {"f32": 0.81, "int8": 0.77}, agreement)
    assert with_gold.compute_loss() == pytest.approx(0.03)
    assert np.isclose(precision_loss.compute_span_f1({(0, 0, 1, "PER"), (0, 2, 3, "LOC")}, {(0, 0, 1, "PER")}), 2 / 3)
