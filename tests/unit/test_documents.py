import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entitymill.engines import documents
from entitymill.engines.worker import windows
from entitymill.recognition.tagger.inference import Tagger


def utf16(text: str, at: int) -> int:
    return len(text[:at].encode("utf-16-le")) // 2


def segmented(texts: list[str], ids: list[str] | None = None, blocks: list[tuple[int, int]] | None = None) -> pa.RecordBatch:
    """As segmentation gives them: a sentence per line, a token per blank-separated word, UTF-16, inclusive."""
    rows = []
    for text in texts:
        sentences, tokens, at = [], [], 0
        for line in text.split("\n"):
            if line.strip(" "):
                sentences.append((utf16(text, at), utf16(text, at + len(line)) - 1))
            start = at
            for word in line.split(" "):
                if word:
                    tokens.append((utf16(text, start), utf16(text, start + len(word)) - 1))
                start += len(word) + 1
            at += len(line) + 1
        rows.append((sentences, tokens))
    columns = {
        "doc_id": ids or [f"d{i}" for i in range(len(texts))],
        "text": texts,
        "text_hash": ["h"] * len(texts),
        "chars": pa.array([len(text) for text in texts], pa.int32()),
        "block": pa.array([block for block, _ in blocks or [(0, 1)] * len(texts)], pa.int32()),
        "blocks": pa.array([of for _, of in blocks or [(0, 1)] * len(texts)], pa.int32()),
    }
    for at, name in enumerate(("sentence", "token")):
        for edge, kind in enumerate(("begin", "end")):
            columns[f"{name}_{kind}"] = pa.array([[p[edge] for p in row[at]] for row in rows], pa.list_(pa.int32()))
    return pa.RecordBatch.from_pydict(columns)


def recognised(batch: pa.RecordBatch, tagger: Tagger) -> list[dict]:
    texts = batch.column("text").to_pylist()
    segments = documents.read_segments(batch, texts)
    tags = tagger.tag(segments.tokens, segments.sentence_tokens)
    found = documents.found(texts, segments, tags, tagger.labels)
    return documents.output(batch, found, (0.0, 0.0), ()).to_pylist()


alphabet = st.sampled_from(["Angela", "Merkel", "😀", "𝒳", "é", "e\u0301", "in", "Paris", "ö", ".", "\u200f", "\x00"])
lines = st.lists(st.lists(alphabet, max_size=6).map(" ".join), max_size=5).map("\n".join)


@given(st.lists(lines, max_size=5))
def test_tokens_and_sentences_are_cut_out_of_any_text(texts: list[str]) -> None:
    found = documents.read_segments(segmented(texts), texts)

    expected = [word for text in texts for line in text.split("\n") for word in line.split(" ") if word]
    assert found.tokens == expected
    assert found.sentence_tokens.sum() == len(expected)
    assert len(found.sentence_begin) == found.sentence_starts[-1] == len(found.sentence_tokens)
    document_of = np.searchsorted(found.sentence_starts, np.arange(len(found.sentence_begin)), side="right") - 1
    for begin, end, document in zip(found.sentence_begin, found.sentence_end, document_of, strict=True):
        sentence = texts[document][begin:end]
        assert sentence == sentence.strip() != ""


@settings(max_examples=20)
@given(texts=st.lists(lines, max_size=4))
def test_every_mention_is_the_text_at_its_offsets(tagger: Tagger, texts: list[str]) -> None:
    for row, text in zip(recognised(segmented(texts), tagger), texts, strict=True):
        for mention in row["mentions"]:
            assert text[mention["begin"] : mention["end"]] == mention["entity"]
            assert mention["sentence_begin"] <= mention["begin"] < mention["end"] <= mention["sentence_end"]
            assert mention["mention_id"] == f"{row['doc_id']}:{mention['begin']}-{mention['end']}"


def test_documents_get_their_own_mentions_and_counts(tagger: Tagger) -> None:
    texts = ["", "😀 Angela Merkel met Emmanuel Macron .\nNobody else came .", " ", "They met in Paris ."]
    rows = recognised(segmented(texts), tagger)

    assert [[(m["entity"], m["label"], m["sentence_id"]) for m in row["mentions"]] for row in rows] == [
        [],
        [("Angela Merkel", "PER", 0), ("Emmanuel Macron", "PER", 0)],
        [],
        [("Paris", "LOC", 0)],
    ]
    assert [row["sentences"] for row in rows] == [0, 2, 0, 1]
    assert [row["tokens"] for row in rows] == [0, 11, 0, 5]
    assert rows[1]["mentions"][0]["begin"] == 2


def test_spark_nlps_loose_sentence_ends_are_trimmed() -> None:
    text = " One Two.  "
    batch = segmented(["x"]).to_pydict()
    batch |= {"text": [text], "sentence_begin": [[0]], "sentence_end": [[len(text)]]}
    batch |= {"token_begin": [[1, 5]], "token_end": [[3, 8]]}
    schema = segmented(["x"]).schema

    found = documents.read_segments(pa.RecordBatch.from_pydict(batch, schema), [text])

    assert (found.sentence_begin.tolist(), found.sentence_end.tolist()) == ([1], [9])


def test_a_token_that_python_would_strip_stays_in_its_sentence() -> None:
    found = documents.read_segments(segmented(["a b\x1c"]), ["a b\x1c"])
    assert (found.sentence_end.tolist(), found.token_end.tolist()) == ([4], [1, 4])


def test_a_slice_of_a_batch_is_read_from_its_own_start(tagger: Tagger) -> None:
    whole = segmented(["They met in Rome .", "They met in Paris .", "They met in Berlin ."])
    rows = recognised(whole.slice(1, 1), tagger)
    assert [m["entity"] for m in rows[0]["mentions"]] == ["Paris"]


def test_blocks_of_a_document_are_one_document_again(tagger: Tagger) -> None:
    texts = ["They met in Rome .", "😀 They met in Paris .\n", "Then came\nAngela Merkel .", "They met in Berlin ."]
    batch = segmented(texts, ["a", "b", "b", "c"], [(0, 1), (0, 2), (1, 2), (0, 1)])
    rows = recognised(batch, tagger)
    whole = texts[1] + texts[2]

    assert [row["doc_id"] for row in rows] == ["a", "b", "c"]
    assert [row["sentences"] for row in rows] == [1, 3, 1]
    mentions = rows[1]["mentions"]
    assert [(m["entity"], m["sentence_id"]) for m in mentions] == [("Paris", 0), ("Angela Merkel", 2)]
    assert all(whole[m["begin"] : m["end"]] == m["entity"] for m in mentions)
    assert [whole[m["sentence_begin"] : m["sentence_end"]] for m in mentions] == [
        "😀 They met in Paris .",
        "Angela Merkel .",
    ]


def test_a_window_never_ends_inside_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entitymill.engines.worker.WINDOW_SENTENCES", 1)
    whole = segmented(["a b"] * 4, ["x", "y", "y", "y"], [(0, 1), (0, 3), (1, 3), (2, 3)])

    joined = list(windows(whole.slice(i, 1) for i in range(4)))

    assert [window.column("doc_id").to_pylist() for window in joined] == [["x"], ["y", "y", "y"]]


def test_small_batches_are_joined_and_none_is_lost() -> None:
    batches = [segmented(["a b\nc d"] * 100, [f"{n}-{i}" for i in range(100)]) for n in range(8)]

    joined = list(windows(iter(batches)))

    assert [window.num_rows for window in joined] == [600, 200]
    ids = [i for window in joined for i in window.column("doc_id").to_pylist()]
    assert ids == [f"{n}-{i}" for n in range(8) for i in range(100)]
