import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entitymill.errors import ModelError
from entitymill_models import sparknlp_field_files

GOLDEN = Path(__file__).parents[1] / "golden" / "saved_vocabulary"
"""The vocabulary field of a tiny DistilBERT, as Spark NLP 5.5.3 saved it."""
CONTENT = (GOLDEN / "part-00000").read_bytes()
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
mappings = st.dictionaries(words, st.integers(-(2**31), 2**31 - 1), max_size=40).map(lambda found: list(found.items()))


def read(content: bytes) -> list[tuple[str, int]]:
    return [
        pair
        for record in sparknlp_field_files.read_records(content, "here")
        for pair in sparknlp_field_files.read_pairs(record, "here")
    ]


def test_what_spark_nlp_saved_is_read_and_written_again_byte_for_byte() -> None:
    records = list(sparknlp_field_files.read_records(CONTENT, "here"))
    pairs = read(CONTENT)

    assert {"[PAD]": 0, "[CLS]": 2}.items() <= dict(pairs).items()
    assert sorted(number for _, number in pairs) == list(range(150))
    assert [
        sparknlp_field_files.write_pairs(sparknlp_field_files.read_pairs(record, "here")) for record in records
    ] == records
    written = sparknlp_field_files.write_records(records)
    assert (written[:0x4F], written[0x5F:]) == (CONTENT[:0x4F], CONTENT[0x5F:])  # all but the random sync marker


@given(mappings)
def test_any_mapping_comes_back(pairs: list[tuple[str, int]]) -> None:
    assert sparknlp_field_files.read_pairs(sparknlp_field_files.write_pairs(pairs), "here") == pairs


@given(st.lists(st.binary(max_size=60_000), max_size=6))
def test_any_records_come_back_across_sync_markers(records: list[bytes]) -> None:
    assert list(sparknlp_field_files.read_records(sparknlp_field_files.write_records(records), "here")) == records


@given(st.data())
@settings(max_examples=400)
def test_a_damaged_field_is_refused_or_read_as_pairs_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "drop"])):
            case "flip":
                content[at : at + 1] = bytes(byte ^ data.draw(st.integers(1, 255)) for byte in content[at : at + 1])
            case "cut":
                del content[at + 1 :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
            case "drop":
                del content[at : at + data.draw(st.integers(1, 40))]
    try:
        found = read(bytes(content))
    except ModelError:
        return
    assert all(isinstance(key, str) and isinstance(value, int) for key, value in found)


@pytest.mark.parametrize("at", range(len(sparknlp_field_files.write_pairs([("a", 1)]))))
def test_no_byte_of_a_record_can_be_missing(at: int) -> None:
    record = sparknlp_field_files.write_pairs([("a", 1)])
    with pytest.raises(ModelError, match="damaged"):
        sparknlp_field_files.read_pairs(record[:at], "here")


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (b"java.lang.Integer", b"java.lang.Runtime"),
        (b"[Lscala.Tuple2;", b"[Lscala.Tuple3;"),
        (b"\x00\x05value", b"\x00\x05valve"),
        (struct.pack(">i", 1) + b"sr", struct.pack(">i", 2**31 - 1) + b"sr"),
    ],
    ids=["another class", "another array", "another field", "an absurd count"],
)
def test_other_objects_are_refused(found: bytes, instead: bytes) -> None:
    record = sparknlp_field_files.write_pairs([("a", 1)])
    assert found in record
    with pytest.raises(ModelError, match="Java objects other than pairs"):
        sparknlp_field_files.read_pairs(record.replace(found, instead), "here")


def test_a_compressed_file_says_so() -> None:
    flag = CONTENT.index(b"BytesWritable") + len(b"BytesWritable")
    with pytest.raises(ModelError, match="compressed"):
        list(sparknlp_field_files.read_records(CONTENT[:flag] + b"\x01" + CONTENT[flag + 1 :], "here"))


def test_a_string_that_java_could_not_write_short_is_refused() -> None:
    with pytest.raises(ModelError, match="65,535"):
        sparknlp_field_files.write_pairs([("x" * 65_536, 0)])
